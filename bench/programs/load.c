/*
 * The program that the benchmark dumps and restores. It measures from inside
 * how long it was stopped, and can tell whether all of it is still right.
 *
 * Usage: load PAGE MIB THREADS MAPPINGS
 *
 * PAGE      file of one page, mapped shared: what the benchmark reads and
 *           asks (page.h).
 * MIB       private memory that is filled, and written to all the time.
 * THREADS   threads in all; all but the first wait for a question.
 * MAPPINGS  further mappings of one page, with content; neighbours differ in
 *           their protection, so that the kernel cannot join them.
 *
 * The first thread reads the clock without a pause. Every 20 us it writes to
 * the next 4 KiB of its memory, so a copy of the memory that is made while it
 * runs costs what it costs a real program that writes 200 MB/s.
 */

#define _GNU_SOURCE
#include <pthread.h>

#include "page.h"

#define WORDS (SIZE / sizeof(uint64_t))
#define WRITE_EVERY 20000

static uint64_t *memory, pages;
static uint64_t **mappings, mapping_count;
static uint64_t next_write, writes;
static uint64_t thread_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static uint64_t question, answers, wrong_threads;
static __thread uint64_t own_number, own_questions;

static uint64_t word(uint64_t index) {
  return index * 0x9E3779B97F4A7C15ull + 1;
}

/* Each thread checks what only it has: its stack, and its thread storage. */
static void *wait_for_questions(void *argument) {
  volatile uint64_t number = (uint64_t)argument;
  own_number = number;
  pthread_mutex_lock(&lock);
  while (own_number == number) {
    while (own_questions == question) pthread_cond_wait(&asked, &lock);
    own_questions++;
    if (own_questions != question || own_number != number ||
        number != (uint64_t)argument)
      wrong_threads++;
    if (++answers == thread_count - 1) pthread_cond_signal(&answered);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static void check_threads(void) {
  pthread_mutex_lock(&lock);
  answers = 0;
  wrong_threads = 0;
  question++;
  pthread_cond_broadcast(&asked);
  while (answers < thread_count - 1) pthread_cond_wait(&answered, &lock);
  page->threads = answers - wrong_threads + 1;
  pthread_mutex_unlock(&lock);
}

/* Write number w went to page w % pages, so what the page must hold is known. */
static uint64_t last_write(uint64_t index) {
  if (writes <= index) return 0;
  return (writes - 1 - index) / pages * pages + index + 1;
}

static uint64_t check_memory(void) {
  uint64_t wrong = 0;
  for (uint64_t p = 0; p < pages; p++) {
    uint64_t *at = memory + p * WORDS;
    wrong += at[0] != last_write(p);
    for (uint64_t i = 1; i < WORDS; i++) wrong += at[i] != word(p * WORDS + i);
  }
  for (uint64_t m = 0; m < mapping_count; m++)
    for (uint64_t i = 0; i < WORDS; i++)
      wrong += mappings[m][i] != word(m + i);
  return wrong;
}

static void write_next(uint64_t t) {
  if (t < next_write) return;
  memory[writes % pages * WORDS] = writes + 1;
  writes++;
  next_write = t + WRITE_EVERY;
}

static void check(uint64_t number) {
  (void)number;
  check_threads();
  page->wrong = check_memory();
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: load PAGE MIB THREADS MAPPINGS\n");
    return 2;
  }
  open_page(argv[1]);
  pages = (strtoull(argv[2], NULL, 10) << 20) / SIZE;
  thread_count = strtoull(argv[3], NULL, 10);
  mapping_count = strtoull(argv[4], NULL, 10);
  if (pages == 0 || thread_count == 0) return 2;

  memory = map(pages * SIZE, MAP_PRIVATE);
  for (uint64_t p = 0; p < pages; p++)
    for (uint64_t i = 1; i < WORDS; i++)
      memory[p * WORDS + i] = word(p * WORDS + i);
  mappings = map(mapping_count * sizeof *mappings + SIZE, MAP_PRIVATE);
  for (uint64_t m = 0; m < mapping_count; m++) {
    mappings[m] = map(SIZE, MAP_PRIVATE);
    for (uint64_t i = 0; i < WORDS; i++) mappings[m][i] = word(m + i);
    if (m % 2) MUST(mprotect(mappings[m], SIZE, PROT_READ));
  }
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  for (uint64_t i = 1; i < thread_count; i++) {
    pthread_t thread;
    MUST(-pthread_create(&thread, &small, wait_for_questions, (void *)i));
  }

  next_write = now();
  run(write_next, check);
}
