/*
 * A tree that the benchmark dumps and restores, beside one busy process in it
 * that measures how long it was stopped.
 *
 * Usage: family PAGE CHILDREN KIB SHARED_MIB
 *
 * PAGE        file of one page, mapped shared: what the benchmark reads and
 *             asks (page.h).
 * CHILDREN    forked processes that sleep until they are asked.
 * KIB         memory that each child writes for itself.
 * SHARED_MIB  memory that the first process has written before it forked, and
 *             that all read: shared until somebody writes.
 *
 * The first process reads the clock without a pause. Asked, it signals each
 * child, which checks its memory and answers in a shared word of its own.
 */

#define _GNU_SOURCE
#include <sys/prctl.h>

#include "page.h"

static uint64_t *inherited, inherited_words, own_words;
static struct children children;

/* Of small pages only. */
static uint64_t *map_small(uint64_t size) {
  void *p = map(size, MAP_PRIVATE);
  MUST(madvise(p, size, MADV_NOHUGEPAGE));
  return p;
}

static uint64_t word(uint64_t index) {
  return index * 0x9E3779B97F4A7C15ull + 1;
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
  uint64_t *own = map_small(own_words * 8);
  fill(own, own_words, number);
  pid_t pid = getpid();
  children.answers[number] = 1;
  for (;;) {
    await_question();
    if (getpid() == pid && !wrong(own, own_words, number) &&
        !wrong(inherited, inherited_words, 0))
      children.answers[number]++;
  }
}

static void check(uint64_t question) {
  (void)question;
  page->threads = ask(&children) + 1;
  page->wrong = wrong(inherited, inherited_words, 0);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: family PAGE CHILDREN KIB SHARED_MIB\n");
    return 2;
  }
  open_page(argv[1]);
  own_words = strtoull(argv[3], NULL, 10) * 128;
  inherited_words = strtoull(argv[4], NULL, 10) << 17;
  inherited = map_small(inherited_words * 8);
  fill(inherited, inherited_words, 0);
  children = expect_children(strtoull(argv[2], NULL, 10));
  for (uint64_t i = 0; i < children.count; i++) {
    children.pids[i] = MUST(fork());
    if (children.pids[i] == 0) child(i);
    while (!children.answers[i]) usleep(100);
  }
  run(NULL, check);
}
