/* Many threads: names, signal masks, alternate stacks, thread-local memory, gs base, ids, joining, mutexes. */
#include "check.h"
#include <asm/prctl.h>
#include <signal.h>
#include <sys/prctl.h>

#define THREADS 64
static __thread uint64_t local[512];

struct thread {
  int index;
  pthread_t id;
  pid_t tid;
  uint64_t gs, gs_after, fs, fs_after;
  unsigned char alternate[32768];
  sigset_t mask, mask_after;
  stack_t stack_after;
  char name_after[16];
  pid_t tid_after;
  int local_wrong, handled_on_alternate, unusual_stack_flags;
} threads[THREADS];
static atomic_int ready_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static long counter;
static __thread struct thread *self;

static void on_signal(int sig) {
  (void)sig;
  unsigned char here;
  self->handled_on_alternate = &here >= self->alternate && &here < self->alternate + sizeof(self->alternate);
}

static void *run(void *argument) {
  struct thread *t = argument;
  self = t;
  t->tid = check_tid();
  char name[16];
  snprintf(name, sizeof(name), "thread %d", t->index);
  prctl(PR_SET_NAME, name);
  check_fill(local, sizeof(local), (uint64_t)t->index);
  sigemptyset(&t->mask);
  for (int sig = 1; sig < 65; sig++)
    if (sig != SIGUSR1 && sig != SIGKILL && sig != SIGSTOP && sig != 32 && sig != 33 && (sig * 7 + t->index) % 3 == 0) sigaddset(&t->mask, sig);
  pthread_sigmask(SIG_SETMASK, &t->mask, NULL);
  if (t->index % 2) {
    stack_t stack = {.ss_sp = t->alternate, .ss_size = sizeof(t->alternate), .ss_flags = t->index % 4 == 1 ? 0 : (int)(1u << 31)};
    sigaltstack(&stack, NULL);
  }
  t->gs = 0x700000000000u + (uint64_t)t->index * 0x10000;
  syscall(SYS_arch_prctl, ARCH_SET_GS, t->gs);
  syscall(SYS_arch_prctl, ARCH_GET_FS, &t->fs);
  atomic_fetch_add(&ready_count, 1);
  if (t->index % 3)
    check_wait_go();
  else
    pthread_barrier_wait(&barrier);
  syscall(SYS_arch_prctl, ARCH_GET_GS, &t->gs_after);
  syscall(SYS_arch_prctl, ARCH_GET_FS, &t->fs_after);
  uint64_t expected[512];
  check_fill(expected, sizeof(expected), (uint64_t)t->index);
  t->local_wrong = memcmp(expected, local, sizeof(local)) != 0;
  pthread_sigmask(SIG_SETMASK, NULL, &t->mask_after);
  sigaltstack(NULL, &t->stack_after);
  prctl(PR_GET_NAME, t->name_after);
  t->tid_after = check_tid();
  raise(SIGUSR1);
  for (int i = 0; i < 1000; i++) {
    pthread_mutex_lock(&lock);
    counter++;
    pthread_mutex_unlock(&lock);
  }
  return (void *)(long)(1000 + t->index);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  MUST(sigaction(SIGUSR1, &action, NULL));
  MUST0(pthread_barrier_init(&barrier, NULL, (THREADS + 2) / 3 + 1));
  for (int i = 0; i < THREADS; i++) {
    threads[i].index = i;
    MUST0(pthread_create(&threads[i].id, NULL, run, &threads[i]));
  }
  while (atomic_load(&ready_count) < THREADS) check_sleep_ms(1);

  check_ready();

  pthread_barrier_wait(&barrier);
  for (int i = 0; i < THREADS; i++) {
    void *value = NULL;
    struct thread *t = &threads[i];
    CHECK_EQ("joining thread %d", 0, pthread_join(t->id, &value), i);
    CHECK_EQ("value of thread %d", 1000 + i, (long)value, i);
    CHECK_EQ("id of thread %d", t->tid, t->tid_after, i);
    CHECK_STRING("name of thread %d", check_name("thread %d", i), t->name_after, i);
    CHECK_EQ("gs base of thread %d", t->gs, t->gs_after, i);
    CHECK_EQ("fs base of thread %d", t->fs, t->fs_after, i);
    CHECK_EQ("thread-local memory of thread %d", 0, t->local_wrong, i);
    for (int sig = 1; sig < 65; sig++)
      CHECK_EQ("signal %d in the mask of thread %d", sigismember(&t->mask, sig), sigismember(&t->mask_after, sig), sig, i);
    if (i % 2) {
      CHECK_EQ("alternate stack of thread %d", (long)t->alternate, (long)t->stack_after.ss_sp, i);
      CHECK_EQ("its size", sizeof(t->alternate), t->stack_after.ss_size);
      CHECK_EQ("its flags", i % 4 == 1 ? 0 : (int)(1u << 31), t->stack_after.ss_flags);
    } else {
      CHECK_EQ("alternate stack of thread %d is disabled", SS_DISABLE, t->stack_after.ss_flags, i);
    }
    CHECK_EQ("handler of thread %d ran on the alternate stack", i % 2, t->handled_on_alternate, i);
  }
  CHECK_EQ("counter under the mutex", THREADS * 1000, counter);
  return check_finish();
}
