/*
 * A program with many deleted files open, which the benchmark dumps and
 * restores. It measures from inside how long it was stopped.
 *
 * Usage: ghosts PAGE DIRECTORY FILES KIB STRIDE_KIB
 *
 * PAGE        file of one page, mapped shared: what the benchmark reads and
 *             asks; the same words as those of load.c.
 * DIRECTORY   where the files are made, and deleted at once.
 * FILES       how many stay open.
 * KIB         size of each.
 * STRIDE_KIB  at each multiple of it in a file begins a piece of 64 KiB of
 *             data; the rest are holes. 0: the whole file is data.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
#define PAUSE 100000
#define PIECE 65536

struct page {
  volatile uint64_t ready;
  volatile uint64_t loops;    /* readings of the clock */
  volatile uint64_t gap;      /* ns between two readings, the largest */
  volatile uint64_t paused;   /* ns, sum of all gaps longer than PAUSE */
  volatile uint64_t pauses;   /* how many they were */
  volatile uint64_t now;      /* CLOCK_MONOTONIC, the latest reading */
  volatile uint64_t question; /* the benchmark counts it up: check all */
  volatile uint64_t answer;   /* the question that was answered last */
  volatile uint64_t wrong;    /* files that are not as they should be */
  volatile uint64_t threads;  /* always 1 */
};

static struct page *page;
static int *files;
static uint64_t file_count, size, stride, piece;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void fill(uint64_t *words, uint64_t bytes, uint64_t file, uint64_t at) {
  for (uint64_t i = 0; i < bytes / sizeof *words; i++)
    words[i] = (file + 1) * 0x9E3779B97F4A7C15ull + at + i;
}

/* Of the piece at `at`, the last one of a file may be shorter. */
static uint64_t bytes_at(uint64_t at) {
  return size - at < piece ? size - at : piece;
}

static int make(const char *directory, uint64_t number, uint64_t *words) {
  char name[4096];
  snprintf(name, sizeof name, "%s/file-%lu", directory, number);
  int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0) die(name);
  if (unlink(name) || ftruncate(fd, size)) die(name);
  for (uint64_t at = 0; at < size; at += stride) {
    fill(words, bytes_at(at), number, at);
    if (pwrite(fd, words, bytes_at(at), at) != (ssize_t)bytes_at(at))
      die("pwrite");
  }
  return fd;
}

static int is_right(uint64_t number, uint64_t *words, uint64_t *found) {
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

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: ghosts PAGE DIRECTORY FILES KIB STRIDE_KIB\n");
    return 2;
  }
  int file = open(argv[1], O_RDWR);
  if (file < 0) die(argv[1]);
  page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) die(argv[1]);
  close(file);

  file_count = strtoull(argv[3], NULL, 10);
  size = strtoull(argv[4], NULL, 10) << 10;
  stride = strtoull(argv[5], NULL, 10) << 10;
  piece = PIECE;
  if (stride == 0) stride = piece;
  if (file_count == 0 || size == 0 || stride < piece) return 2;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit)) die("setrlimit");

  static uint64_t words[PIECE / 8], found[PIECE / 8];
  files = malloc(file_count * sizeof *files);
  if (!files) die("malloc");
  for (uint64_t i = 0; i < file_count; i++) files[i] = make(argv[2], i, words);
  sync();

  uint64_t last = now();
  page->ready = 1;
  for (;;) {
    uint64_t t = now(), gap = t - last;
    last = t;
    if (gap > page->gap) page->gap = gap;
    if (gap > PAUSE) {
      page->paused += gap;
      page->pauses++;
    }
    page->loops++;
    page->now = t;
    uint64_t number = page->question;
    if (number != page->answer) {
      uint64_t wrong = 0;
      for (uint64_t i = 0; i < file_count; i++)
        wrong += !is_right(i, words, found);
      page->wrong = wrong;
      page->threads = 1;
      page->answer = number;
      last = now();
    }
  }
}
