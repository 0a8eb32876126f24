/*
 * What all programs of the benchmark have in common: the page in which the
 * benchmark reads how they fare and asks them, and the clock that they read
 * without a pause, by which they know for how long they were stopped.
 */

#ifndef PAGE_H
#define PAGE_H

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
/* ns; a gap longer than this counts as time in which the program did not run */
#define PAUSE 100000

/* bench/load.ts knows the order of the words. */
struct page {
  volatile uint64_t ready;
  volatile uint64_t loops;    /* readings of the clock */
  volatile uint64_t gap;      /* ns between two readings, the largest */
  volatile uint64_t paused;   /* ns, sum of all gaps longer than PAUSE */
  volatile uint64_t pauses;   /* how many they were */
  volatile uint64_t now;      /* CLOCK_MONOTONIC, the latest reading */
  volatile uint64_t question; /* the benchmark counts it up: check all */
  volatile uint64_t answer;   /* the question that was answered last */
  volatile uint64_t wrong;    /* things that are not as they should be */
  volatile uint64_t threads;  /* threads or processes that answered right */
};

static struct page *page;

static long must(long value, const char *what) {
  if (value < 0) {
    perror(what);
    exit(1);
  }
  return value;
}
#define MUST(call) must((long)(call), #call)

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *map(uint64_t size, int flags) {
  void *p = mmap(NULL, size ? size : SIZE, PROT_READ | PROT_WRITE,
                 MAP_ANONYMOUS | flags, -1, 0);
  if (p == MAP_FAILED) MUST(-1);
  return p;
}

/* Maps the file of the page, which every program is given first. */
static inline void open_page(const char *path) {
  int file = must(open(path, O_RDWR), path);
  page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) must(-1, path);
  close(file);
}

/* As many open files as the limit can be raised to. */
static inline void raise_file_limit(void) {
  struct rlimit limit;
  MUST(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &limit));
}

/*
 * Reads the clock for ever. `work` is told each reading, unless it is NULL.
 * `check` is called for each question; it sets `wrong` and `threads`.
 */
static inline void run(void (*work)(uint64_t now), void (*check)(uint64_t question)) {
  uint64_t last = now();
  page->ready = 1;
  for (;;) {
    uint64_t t = now(), gap = t - last, question;
    last = t;
    if (gap > page->gap) page->gap = gap;
    if (gap > PAUSE) {
      page->paused += gap;
      page->pauses++;
    }
    page->loops++;
    page->now = t;
    if (work) work(t);
    question = page->question;
    if (question != page->answer) {
      check(question);
      page->answer = question;
      last = now();
    }
  }
}

/* Forked processes, which sleep until they are asked by SIGUSR1. */
struct children {
  uint64_t count;
  pid_t *pids;
  /* What each answers: anonymous shared memory of all. */
  volatile uint64_t *answers;
};

/* Blocks the signal, also in the children to come. */
static inline struct children expect_children(uint64_t count) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return (struct children){count, calloc(count + 1, sizeof(pid_t)),
                           map((count + 1) * 8, MAP_SHARED)};
}

/* In a child: says that it is ready, and waits to be asked. */
static inline void await_question(void) {
  sigset_t set;
  int signal;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigwait(&set, &signal);
}

/* Asks all; returns how many answered that they are right, by counting up. */
static inline uint64_t ask(const struct children *children) {
  uint64_t right = 0, until = now() + 10000000000ull;
  for (uint64_t i = 0; i < children->count; i++) {
    children->answers[i] = 1;
    kill(children->pids[i], SIGUSR1);
  }
  for (uint64_t i = 0; i < children->count; i++) {
    while (children->answers[i] != 2 && now() < until) usleep(100);
    right += children->answers[i] == 2;
  }
  return right;
}

#endif
