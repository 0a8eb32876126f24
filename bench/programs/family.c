/*
 * A tree that the benchmark dumps and restores, beside one busy process in it
 * that measures how long it was stopped.
 *
 * Usage: family PAGE CHILDREN KIB SHARED_MIB
 *
 * PAGE        file of one page, mapped shared: what the benchmark reads and
 *             asks; the same words as those of load.c.
 * CHILDREN    forked processes that sleep until they are asked.
 * KIB         memory that each child writes for itself.
 * SHARED_MIB  memory that the first process has written before it forked, and
 *             that all read: shared until somebody writes.
 *
 * The first process reads the clock without a pause. Asked, it signals each
 * child, which checks its memory and answers in a shared word of its own.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
#define PAUSE 100000

struct page {
  volatile uint64_t ready;
  volatile uint64_t loops;    /* readings of the clock */
  volatile uint64_t gap;      /* ns between two readings, the largest */
  volatile uint64_t paused;   /* ns, sum of all gaps longer than PAUSE */
  volatile uint64_t pauses;   /* how many they were */
  volatile uint64_t now;      /* CLOCK_MONOTONIC, the latest reading */
  volatile uint64_t question; /* the benchmark counts it up: check all */
  volatile uint64_t answer;   /* the question that was answered last */
  volatile uint64_t wrong;    /* words that are not as they should be */
  volatile uint64_t threads;  /* processes that answered right */
};

static struct page *page;
static uint64_t *inherited, inherited_words, own_words;
/* What each child answers: anonymous shared memory of all. */
static volatile uint64_t *answers;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t word(uint64_t index) {
  return index * 0x9E3779B97F4A7C15ull + 1;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void *map(uint64_t size, int flags) {
  void *p = mmap(NULL, size ? size : SIZE, PROT_READ | PROT_WRITE,
                 MAP_ANONYMOUS | flags, -1, 0);
  if (p == MAP_FAILED) die("mmap");
  if (madvise(p, size, MADV_NOHUGEPAGE)) die("madvise");
  return p;
}

static void fill(uint64_t *at, uint64_t words, uint64_t seed) {
  for (uint64_t i = 0; i < words; i++) at[i] = word(seed + i);
}

static uint64_t wrong(const uint64_t *at, uint64_t words, uint64_t seed) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < words; i++) count += at[i] != word(seed + i);
  return count;
}

/* Answers are counted up; a child that finds anything wrong does not answer. */
static void child(uint64_t number) {
  uint64_t *own = map(own_words * 8, MAP_PRIVATE);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  fill(own, own_words, number);
  pid_t pid = getpid();
  answers[number] = 1;
  for (;;) {
    int sig;
    sigwait(&set, &sig);
    if (getpid() == pid && !wrong(own, own_words, number) &&
        !wrong(inherited, inherited_words, 0))
      answers[number]++;
  }
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: family PAGE CHILDREN KIB SHARED_MIB\n");
    return 2;
  }
  int file = open(argv[1], O_RDWR);
  if (file < 0) die(argv[1]);
  page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) die(argv[1]);
  close(file);
  uint64_t children = strtoull(argv[2], NULL, 10);
  own_words = strtoull(argv[3], NULL, 10) * 128;
  inherited_words = strtoull(argv[4], NULL, 10) << 17;
  inherited = map(inherited_words * 8, MAP_PRIVATE);
  fill(inherited, inherited_words, 0);
  answers = map((children + 1) * 8, MAP_SHARED);
  pid_t *pids = calloc(children + 1, sizeof *pids);

  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  for (uint64_t i = 0; i < children; i++) {
    pids[i] = fork();
    if (pids[i] < 0) die("fork");
    if (pids[i] == 0) child(i);
    while (!answers[i]) usleep(100);
  }

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
      uint64_t right = 1, until = now() + 10000000000ull;
      for (uint64_t i = 0; i < children; i++) {
        answers[i] = 1;
        if (kill(pids[i], SIGUSR1)) continue;
      }
      for (uint64_t i = 0; i < children; i++) {
        while (answers[i] != 2 && now() < until) usleep(100);
        right += answers[i] == 2;
      }
      page->threads = right;
      page->wrong = wrong(inherited, inherited_words, 0);
      page->answer = number;
      last = now();
    }
  }
}
