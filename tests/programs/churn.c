/*
 * Threads that come and go and mappings that come and go, all the time: whoever stops the program must get all of
 * it. Each short thread is joined and its work is counted; each mapping is filled and compared before it goes.
 */
#include "check.h"
#include <sys/mman.h>

#define PARENTS 3
static pthread_t ids[PARENTS + 1];
static atomic_long made[PARENTS], worked[PARENTS], maps;
static atomic_int wrong;

static void *short_life(void *argument) {
  int i = (int)(long)argument;
  unsigned char bytes[256];
  check_fill(bytes, sizeof(bytes), (uint64_t)i);
  atomic_fetch_add(&worked[i], 1);
  return argument;
}
static void *parent(void *argument) {
  int i = (int)(long)argument;
  while (!atomic_load(&check_go_seen)) {
    pthread_t children[4];
    for (int k = 0; k < 4; k++) {
      if (pthread_create(&children[k], NULL, short_life, argument)) atomic_store(&wrong, 1);
      atomic_fetch_add(&made[i], 1);
    }
    for (int k = 0; k < 4; k++) {
      void *value = NULL;
      if (pthread_join(children[k], &value) || value != argument) atomic_store(&wrong, 2);
    }
    if (made[i] % 64 == 0) check_sleep_ms(1);
  }
  return NULL;
}
static void *mapper(void *unused) {
  (void)unused;
  for (uint64_t round = 1; !atomic_load(&check_go_seen); round++) {
    size_t pages = 1 + round % 40;
    uint64_t *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) atomic_store(&wrong, 3);
    for (size_t i = 0; i < pages; i++) memory[i * 512] = round + i;
    if (mprotect(memory, pages * 4096, PROT_READ)) atomic_store(&wrong, 4);
    for (size_t i = 0; i < pages; i++)
      if (memory[i * 512] != round + i) atomic_store(&wrong, 5);
    munmap(memory, pages * 4096);
    atomic_fetch_add(&maps, 1);
    if (round % 16 == 0) check_sleep_ms(1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (long i = 0; i < PARENTS; i++) MUST0(pthread_create(&ids[i], NULL, parent, (void *)i));
  MUST0(pthread_create(&ids[PARENTS], NULL, mapper, NULL));
  for (int i = 0; i < PARENTS; i++)
    while (worked[i] < 10 || maps < 10) check_sleep_ms(1);

  check_ready();

  for (int i = 0; i <= PARENTS; i++) MUST0(pthread_join(ids[i], NULL));
  for (int i = 0; i < PARENTS; i++) CHECK_EQ("work done for parent %d", made[i], worked[i], i);
  CHECK_EQ("trouble", 0, wrong);
  return check_finish();
}
