/*
 * A program with many deleted files open, which the benchmark dumps and
 * restores. It measures from inside how long it was stopped.
 *
 * Usage: ghosts PAGE DIRECTORY FILES KIB STRIDE_KIB
 *
 * PAGE        file of one page, mapped shared: what the benchmark reads and
 *             asks (page.h).
 * DIRECTORY   where the files are made, and deleted at once.
 * FILES       how many stay open.
 * KIB         size of each.
 * STRIDE_KIB  at each multiple of it in a file begins a piece of 64 KiB of
 *             data; the rest are holes. 0: the whole file is data.
 */

#define _GNU_SOURCE
#include <string.h>
#include <sys/stat.h>

#include "page.h"

#define PIECE 65536

static int *files;
static uint64_t file_count, size, stride, piece;
static uint64_t words[PIECE / 8], found[PIECE / 8];

static void fill(uint64_t *words, uint64_t bytes, uint64_t file, uint64_t at) {
  for (uint64_t i = 0; i < bytes / sizeof *words; i++)
    words[i] = (file + 1) * 0x9E3779B97F4A7C15ull + at + i;
}

/* Of the piece at `at`, the last one of a file may be shorter. */
static uint64_t bytes_at(uint64_t at) {
  return size - at < piece ? size - at : piece;
}

static int make(const char *directory, uint64_t number) {
  char name[4096];
  snprintf(name, sizeof name, "%s/file-%lu", directory, number);
  int fd = must(open(name, O_RDWR | O_CREAT | O_EXCL, 0600), name);
  must(unlink(name), name);
  must(ftruncate(fd, size), name);
  for (uint64_t at = 0; at < size; at += stride) {
    fill(words, bytes_at(at), number, at);
    if (pwrite(fd, words, bytes_at(at), at) != (ssize_t)bytes_at(at))
      must(-1, name);
  }
  return fd;
}

static int is_right(uint64_t number) {
  struct stat status;
  if (fstat(files[number], &status) || status.st_nlink != 0 ||
      (uint64_t)status.st_size != size)
    return 0;
  for (uint64_t at = 0; at < size; at += stride) {
    ssize_t bytes = bytes_at(at);
    fill(words, bytes, number, at);
    if (pread(files[number], found, bytes, at) != bytes ||
        memcmp(words, found, bytes))
      return 0;
  }
  return 1;
}

static void check(uint64_t question) {
  uint64_t wrong = 0;
  (void)question;
  for (uint64_t i = 0; i < file_count; i++) wrong += !is_right(i);
  page->wrong = wrong;
  page->threads = 1;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: ghosts PAGE DIRECTORY FILES KIB STRIDE_KIB\n");
    return 2;
  }
  open_page(argv[1]);
  file_count = strtoull(argv[3], NULL, 10);
  size = strtoull(argv[4], NULL, 10) << 10;
  stride = strtoull(argv[5], NULL, 10) << 10;
  piece = PIECE;
  if (stride == 0) stride = piece;
  if (file_count == 0 || size == 0 || stride < piece) return 2;
  raise_file_limit();
  files = calloc(file_count, sizeof *files);
  for (uint64_t i = 0; i < file_count; i++) files[i] = make(argv[2], i);
  sync();
  run(NULL, check);
}
