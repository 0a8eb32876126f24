/* Robust lists: a thread that dies with a robust mutex leaves EOWNERDEAD, a clear_child_tid wakes the joiner. */
#include "check.h"
#include <linux/futex.h>

#define THREADS 8
static pthread_mutex_t mutexes[THREADS];
static pthread_t ids[THREADS];
static atomic_int held;
static struct {
  void *head;
  size_t length;
} before[THREADS], after[THREADS];
/* a robust list of our own making, in another place than the C library's */
static struct {
  struct robust_list_head head;
  struct {
    struct robust_list list;
    uint32_t word;
  } lock;
} own;

static void *run(void *argument) {
  int i = (int)(long)argument;
  if (pthread_mutex_lock(&mutexes[i])) check_die("cannot lock");
  if (i == 0) {
    own.lock.word = (uint32_t)check_tid();
    own.head.list.next = &own.lock.list;
    own.lock.list.next = &own.head.list;
    own.head.futex_offset = (long)((char *)&own.lock.word - (char *)&own.lock.list);
    syscall(SYS_set_robust_list, &own.head, sizeof(own.head));
  }
  syscall(SYS_get_robust_list, 0, &before[i].head, &before[i].length);
  atomic_fetch_add(&held, 1);
  check_wait_go();
  syscall(SYS_get_robust_list, 0, &after[i].head, &after[i].length);
  /* ends without unlocking */
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (long i = 0; i < THREADS; i++) {
    MUST0(pthread_mutex_init(&mutexes[i], &attributes));
    MUST0(pthread_create(&ids[i], NULL, run, (void *)i));
  }
  while (atomic_load(&held) < THREADS) check_sleep_ms(1);
  int busy = pthread_mutex_trylock(&mutexes[1]);
  if (busy != EBUSY) check_die("trylock gave %d", busy);

  check_ready();

  for (int i = 0; i < THREADS; i++) {
    MUST0(pthread_join(ids[i], NULL));
    CHECK_EQ("robust list of thread %d", (long)before[i].head, (long)after[i].head, i);
    CHECK_EQ("length of the robust list head of thread %d", before[i].length, after[i].length, i);
    /* thread 0 replaced the list of the C library, so its mutex stays locked */
    CHECK_EQ("mutex of dead thread %d", i ? EOWNERDEAD : EBUSY, pthread_mutex_trylock(&mutexes[i]), i);
    if (i) CHECK_EQ("mutex %d made consistent", 0, pthread_mutex_consistent(&mutexes[i]), i);
  }
  CHECK_EQ("word of a robust list of our own", FUTEX_OWNER_DIED, own.lock.word);
  return check_finish();
}
