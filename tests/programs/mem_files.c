/* Mapped files: private with written pages, shared, read-only, past the end; and shared anonymous memory. */
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define PAGES 64
#define SIZE (PAGES * 4096ul)

static char path[4200];
static sigjmp_buf beyond;

static void on_bus(int sig) {
  (void)sig;
  siglongjmp(beyond, 1);
}

static int make_file(const char *name, uint64_t seed, int flags) {
  static unsigned char content[SIZE];
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0640));
  check_fill(content, SIZE, seed);
  if (write(fd, content, SIZE) != (ssize_t)SIZE) check_die("cannot write %s", path);
  close(fd);
  return (int)MUST(open(path, flags));
}

static void check_page_of(const char *name, const char *memory, int page, uint64_t seed) {
  static unsigned char content[SIZE];
  check_fill(content, SIZE, seed);
  CHECK_BYTES("%s, page %d", content + page * 4096, memory + page * 4096, 4096, name, page);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const int rw = PROT_READ | PROT_WRITE;
  int fd = make_file("private", 1, O_RDONLY);
  char *private_ = (char *)MUST(mmap(NULL, SIZE, rw, MAP_PRIVATE, fd, 0));
  char *private_offset = (char *)MUST(mmap(NULL, 8 * 4096, rw, MAP_PRIVATE, fd, 40 * 4096));
  char *private_read = (char *)MUST(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
  char *written_then_read_only = (char *)MUST(mmap(NULL, SIZE, rw, MAP_PRIVATE, fd, 0));
  char *zeroed = (char *)MUST(mmap(NULL, SIZE, rw, MAP_PRIVATE, fd, 0));
  close(fd);
  for (int i = 0; i < PAGES; i += 5) check_fill(private_ + i * 4096, 4096, 1000 + i);
  for (int i = 1; i < PAGES; i += 5) (void)((volatile char *)private_)[i * 4096];
  check_fill(private_offset + 4096, 4096, 2000);
  check_fill(written_then_read_only + 3 * 4096, 4096, 3000);
  MUST(mprotect(written_then_read_only, SIZE, PROT_READ));
  /* a page of zeros over a file that holds none: it must not be taken for an untouched page */
  memset(zeroed + 7 * 4096, 0, 4096);

  fd = make_file("shared", 2, O_RDWR);
  char *shared = (char *)MUST(mmap(NULL, SIZE, rw, MAP_SHARED, fd, 0));
  char *shared_again = (char *)MUST(mmap(NULL, SIZE / 2, PROT_READ, MAP_SHARED, fd, SIZE / 2));
  close(fd);
  check_fill(shared + 9 * 4096, 4096, 4000);
  fd = make_file("shared-read-only", 3, O_RDONLY);
  char *shared_read = (char *)MUST(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0));
  close(fd);

  fd = make_file("short", 4, O_RDWR);
  MUST(ftruncate(fd, 4096 + 100));
  char *short_ = (char *)MUST(mmap(NULL, 4 * 4096, rw, MAP_PRIVATE, fd, 0));
  close(fd);
  short_[5] = 'x';

  char *anonymous = (char *)MUST(mmap(NULL, SIZE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  for (int i = 0; i < PAGES; i += 4) check_fill(anonymous + i * 4096, 4096, 5000 + i);
  /* a second view of a part of the same shared memory, one that is larger and has an offset */
  char *second = (char *)MUST(mremap(anonymous + 16 * 4096, 0, 16 * 4096, MREMAP_MAYMOVE));
  char *zero_device = (char *)MUST(mmap(NULL, SIZE, rw, MAP_PRIVATE, (fd = (int)MUST(open("/dev/zero", O_RDWR))), 0));
  check_fill(zero_device + 4096, 4096, 6000);
  close(fd);

  check_ready();

  for (int i = 0; i < PAGES; i++)
    if (i % 5 == 0)
      check_filled(check_name("written page %d of a private file mapping", i), private_ + i * 4096, 4096, 1000 + i);
    else
      check_page_of("private file mapping", private_, i, 1);
  check_filled("written page of a private mapping with an offset", private_offset + 4096, 4096, 2000);
  for (int i = 0; i < PAGES; i++) {
    check_page_of("read-only private mapping", private_read, i, 1);
    if (i == 3)
      check_filled("written page of a now read-only mapping", written_then_read_only + i * 4096, 4096, 3000);
    else
      check_page_of("mapping made read-only", written_then_read_only, i, 1);
    if (i == 7)
      check_zero("page of zeros over a file", zeroed + i * 4096, 4096);
    else
      check_page_of("mapping with a page of zeros", zeroed, i, 1);
    if (i != 9) check_page_of("shared mapping", shared, i, 2);
    check_page_of("read-only shared mapping", shared_read, i, 3);
  }
  check_filled("written page of a shared mapping", shared + 9 * 4096, 4096, 4000);
  shared[PAGES / 2 * 4096 + 1]++;
  CHECK_EQ("two mappings of one file are one memory", shared[PAGES / 2 * 4096 + 1], shared_again[1]);
  shared[PAGES / 2 * 4096 + 1]--;
  char c;
  snprintf(path, sizeof(path), "%s/shared", check_dir);
  fd = (int)MUST(open(path, O_RDONLY));
  shared[11]++;
  CHECK("what is written to a shared mapping is in the file", pread(fd, &c, 1, 11) == 1 && c == shared[11]);
  shared[11]--;
  close(fd);
  CHECK_EQ("private write in a short file", 'x', short_[5]);
  signal(SIGBUS, on_bus);
  if (sigsetjmp(beyond, 1) == 0) {
    (void)((volatile char *)short_)[2 * 4096];
    CHECK("a page past the end of the file still raises SIGBUS", false);
  }
  for (int i = 0; i < PAGES; i++)
    if (i % 4 == 0)
      check_filled(check_name("page %d of shared anonymous memory", i), anonymous + i * 4096, 4096, 5000 + i);
    else
      check_zero(check_name("page %d of shared anonymous memory", i), anonymous + i * 4096, 4096);
  anonymous[16 * 4096 + 77] = 99;
  CHECK_EQ("two views of shared anonymous memory are one memory", 99, second[77]);
  check_filled("written page of private /dev/zero", zero_device + 4096, 4096, 6000);
  check_zero("untouched page of private /dev/zero", zero_device, 4096);
  return check_finish();
}
