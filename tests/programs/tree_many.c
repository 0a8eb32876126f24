/*
 * Many processes and threads that sleep: tree_many WORK_DIRECTORY PROCESSES THREADS. Each has memory of its own; when
 * the root signals it, it compares its memory and its ids, asks its threads, and tells by its exit status.
 */
#include "tree.h"

#define SIZE 16384
enum { RIGHT = 40, WRONG_MEMORY, WRONG_PLACE, WRONG_THREADS, NOT_TOLD };

static int threads;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static int ready, asked, right;

static void *run(void *argument) {
  volatile long number = (long)argument;
  pid_t tid = check_tid();
  pthread_mutex_lock(&lock);
  ready++;
  while (!asked) pthread_cond_wait(&told, &lock);
  if (number == (long)argument && tid == check_tid()) right++;
  pthread_mutex_unlock(&lock);
  return NULL;
}

static pthread_t *start_threads(void) {
  pthread_t *ids = calloc((size_t)threads + 1, sizeof(*ids));
  pthread_attr_t small;
  pthread_attr_init(&small), pthread_attr_setstacksize(&small, 65536);
  for (long i = 0; i < threads; i++) MUST0(pthread_create(&ids[i], &small, run, (void *)i));
  for (int now = 0; now < threads;) {
    pthread_mutex_lock(&lock);
    now = ready;
    pthread_mutex_unlock(&lock);
    if (now < threads) check_sleep_ms(1);
  }
  return ids;
}
static bool threads_right(pthread_t *ids) {
  pthread_mutex_lock(&lock);
  asked = 1;
  pthread_cond_broadcast(&told);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  return right == threads;
}

static int child(int number) {
  char *memory = malloc(SIZE), *expected = malloc(SIZE);
  check_fill(memory, SIZE, (uint64_t)number);
  pthread_t *ids = start_threads();
  struct tree_place before = tree_place();
  if (kill(getppid(), SIGUSR2)) return NOT_TOLD;
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGUSR1);
  if (sigtimedwait(&set, NULL, &(struct timespec){CHECK_SECONDS_TO_LIVE, 0}) != SIGUSR1) return NOT_TOLD;
  struct tree_place now = tree_place();
  if (memcmp(&before, &now, sizeof(now))) return WRONG_PLACE;
  check_fill(expected, SIZE, (uint64_t)number);
  if (memcmp(memory, expected, SIZE)) return WRONG_MEMORY;
  return threads_right(ids) ? RIGHT : WRONG_THREADS;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc < 4) return 2;
  int processes = atoi(argv[2]);
  threads = atoi(argv[3]);
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, NULL);
  sigdelset(&set, SIGUSR1);
  pid_t *pids = calloc((size_t)processes + 1, sizeof(*pids));
  for (int i = 0; i < processes; i++) {
    if ((pids[i] = (pid_t)MUST(fork())) == 0) _exit(child(i));
    MUST(sigtimedwait(&set, NULL, &(struct timespec){TREE_PATIENCE, 0}));
  }
  pthread_t *ids = start_threads();
  /* they all sleep */
  check_sleep_ms(5);
  check_ready();
  for (int i = 0; i < processes; i++) CHECK_EQ("kill", 0, kill(pids[i], SIGUSR1));
  for (int i = 0; i < processes; i++) tree_wait(pids[i], W_EXITCODE(RIGHT, 0));
  CHECK("threads of the root", threads_right(ids));
  return check_finish();
}
