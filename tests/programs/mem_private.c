/* Anonymous private memory: contents, protections, holes, untouched and zero pages, moved and sparse areas. */
#include "check.h"
#include <sys/mman.h>

#define KB 1024ul
#define MB (1024 * KB)
#define GB (1024 * MB)

static char *map(void *at, size_t length, int prot, int flags) {
  return (char *)MUST(mmap(at, length, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
}

/** 1 when every page of the range is absent (never touched), as mincore sees it. */
static int absent(void *memory, size_t length) {
  unsigned char present[1024];
  if (length / 4096 > sizeof(present) || mincore(memory, length, present)) return 0;
  for (size_t i = 0; i < length / 4096; i++)
    if (present[i] & 1) return 0;
  return 1;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const int rw = PROT_READ | PROT_WRITE;

  char *plain = map(NULL, 4 * MB, rw, 0);
  check_fill(plain, 4 * MB, 1);

  /* every third page written: the others stay untouched */
  char *comb = map(NULL, 3 * MB, rw, 0);
  for (size_t i = 0; i < 3 * MB; i += 3 * 4096) check_fill(comb + i, 4096, 100 + i);

  char *untouched = map(NULL, 2 * MB, rw, 0);
  char *zero_read = map(NULL, MB, rw, 0);
  unsigned sum = 0;
  for (size_t i = 0; i < MB; i += 4096) sum += ((volatile unsigned char *)zero_read)[i];
  char *zero_written = map(NULL, MB, rw, 0);
  memset(zero_written, 0, MB);

  char *read_only = map(NULL, MB, rw, 0);
  check_fill(read_only, MB, 2);
  MUST(mprotect(read_only, MB, PROT_READ));
  char *none_with_content = map(NULL, MB, rw, 0);
  check_fill(none_with_content, MB, 3);
  MUST(mprotect(none_with_content, MB, PROT_NONE));
  char *write_only = map(NULL, MB, PROT_WRITE, 0);
  memset(write_only, 7, MB);
  char *none = map(NULL, 64 * MB, PROT_NONE, 0);
  char *executable = map(NULL, 8 * KB, rw | PROT_EXEC, 0);
  memcpy(executable, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov $42, %eax; ret */

  /* one area cut in pieces of different protection, with holes */
  char *cut = map(NULL, 64 * 4096, rw, 0);
  check_fill(cut, 64 * 4096, 4);
  for (int i = 0; i < 64; i += 8) {
    MUST(munmap(cut + (i + 1) * 4096, 4096));
    MUST(mprotect(cut + (i + 3) * 4096, 4096, PROT_READ));
    MUST(mprotect(cut + (i + 5) * 4096, 2 * 4096, PROT_NONE));
  }

  char *moved_from = map(NULL, MB, rw, 0);
  check_fill(moved_from, MB, 5);
  char *moved = (char *)MUST(mremap(moved_from, MB, 3 * MB, MREMAP_MAYMOVE));
  char *target = map(NULL, MB, PROT_NONE, 0);
  char *source = map(NULL, MB, rw, 0);
  check_fill(source, MB, 6);
  char *fixed = (char *)MUST(mremap(source, MB, MB, MREMAP_MAYMOVE | MREMAP_FIXED, target));
  char *left_source = map(NULL, MB, rw, 0);
  check_fill(left_source, MB, 7);
  char *left = (char *)MUST(mremap(left_source, MB, MB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));

  char *no_reserve = map(NULL, 3 * GB, rw, MAP_NORESERVE);
  for (size_t at = 0; at < 3 * GB; at += 300 * MB) check_fill(no_reserve + at, 3 * 4096, at);
  char *low = map((void *)0x10000, 4 * 4096, rw, MAP_FIXED_NOREPLACE);
  check_fill(low, 4 * 4096, 8);
  char *high = map((void *)0x7ffe00000000, 4096, rw, MAP_FIXED_NOREPLACE);
  check_fill(high, 4096, 9);
  char *huge = map(NULL, 6 * MB, rw, 0);
  madvise(huge, 6 * MB, MADV_HUGEPAGE);
  check_fill(huge, 6 * MB, 10);

  check_ready();

  check_filled("private memory", plain, 4 * MB, 1);
  for (size_t i = 0; i < 3 * MB; i += 4096)
    if (i % (3 * 4096) == 0)
      check_filled(check_name("written page %#zx of the comb", i), comb + i, 4096, 100 + i);
    else
      CHECK("page %#zx of the comb is still untouched", absent(comb + i, 4096), i);
  CHECK("an area that was never touched is still untouched", absent(untouched, 2 * MB));
  check_zero("untouched area", untouched, 2 * MB);
  check_zero("area that was only read", zero_read, MB);
  CHECK_EQ("sum of the zero page", 0, sum);
  check_zero("area written with zeros", zero_written, MB);
  check_filled("read-only memory", read_only, MB, 2);
  MUST(mprotect(none_with_content, MB, PROT_READ));
  check_filled("PROT_NONE memory with content", none_with_content, MB, 3);
  MUST(mprotect(write_only, MB, PROT_READ));
  for (size_t i = 0; i < MB; i++)
    if (write_only[i] != 7) {
      CHECK_EQ("write-only memory", 7, write_only[i]);
      break;
    }
  MUST(mprotect(none, 2 * MB, rw));
  check_zero("PROT_NONE area", none, 2 * MB);
  CHECK_EQ("code in anonymous memory", 42, ((int (*)(void))(uintptr_t)executable)());
  for (int i = 0; i < 64; i++) {
    int kind = i % 8;
    if (kind == 1) {
      unsigned char present;
      CHECK("hole %d is still a hole", mincore(cut + i * 4096, 4096, &present) == -1 && errno == ENOMEM, i);
      continue;
    }
    if (kind == 5 || kind == 6) MUST(mprotect(cut + i * 4096, 4096, PROT_READ));
    unsigned char *expected = malloc(64 * 4096);
    check_fill(expected, 64 * 4096, 4);
    CHECK_BYTES("page %d of the area in pieces", expected + i * 4096, cut + i * 4096, 4096, i);
    free(expected);
  }
  check_filled("memory grown by mremap", moved, MB, 5);
  check_zero("what mremap added", moved + MB, 2 * MB);
  check_filled("memory moved by mremap to a fixed place", fixed, MB, 6);
  check_filled("memory moved with MREMAP_DONTUNMAP", left, MB, 7);
  check_zero("what MREMAP_DONTUNMAP left", left_source, MB);
  for (size_t at = 0; at < 3 * GB; at += 300 * MB) {
    check_filled(check_name("sparse area at %zu MiB", at / MB), no_reserve + at, 3 * 4096, at);
    CHECK("sparse area after %zu MiB is still untouched", absent(no_reserve + at + 3 * 4096, 4 * MB), at / MB);
  }
  check_filled("memory at the lowest addresses", low, 4 * 4096, 8);
  check_filled("memory near the end of the address space", high, 4096, 9);
  check_filled("memory with transparent huge pages", huge, 6 * MB, 10);
  /* all of it can still be written */
  memset(plain, 1, 4 * MB);
  memset(untouched, 1, 2 * MB);
  memset(zero_read, 1, MB);
  return check_finish();
}
