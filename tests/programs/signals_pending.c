/* Pending signals of the process and of threads: their order, their siginfo, every byte of it. */
#include "check.h"
#include <signal.h>

#define MAX 64
struct queue {
  siginfo_t info[MAX];
  int count;
};
static struct queue expected_process, expected_thread[2], got_process, got_thread[2];
static pthread_t threads[2];
static atomic_int tids[2];
static sigset_t all, of_threads;

static void push(struct queue *q, const siginfo_t *info) { q->info[q->count++] = *info; }

/** Takes what is pending of a set for the calling thread, its own first, then the process's. */
static void drain(struct queue *q, const sigset_t *set) {
  struct timespec now = {0, 0};
  while (q->count < MAX) {
    memset(&q->info[q->count], 0, sizeof(siginfo_t));
    if (syscall(SYS_rt_sigtimedwait, set, &q->info[q->count], &now, 8) < 0) break;
    q->count++;
  }
}

static siginfo_t queued(int sig, int code, uint64_t seed) {
  siginfo_t info;
  memset(&info, 0, sizeof(info));
  /* all that the kernel carries for a code of user space: 48 bytes on 64-bit machines, the rest must be zero */
  check_fill((char *)&info + 16, 32, seed);
  info.si_signo = sig;
  info.si_errno = (int)seed;
  info.si_code = code;
  return info;
}

static void *run(void *argument) {
  int index = (int)(long)argument;
  atomic_store(&tids[index], check_tid());
  check_wait_go();
  /* not the process's, which the main thread takes at the same time */
  drain(&got_thread[index], &of_threads);
  return NULL;
}

static void to_process(int sig, int code, uint64_t seed) {
  siginfo_t info = queued(sig, code, seed);
  MUST(syscall(SYS_rt_sigqueueinfo, getpid(), sig, &info));
  push(&expected_process, &info);
}
static void to_thread(int index, int sig, int code, uint64_t seed) {
  siginfo_t info = queued(sig, code, seed);
  MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), tids[index], sig, &info));
  push(&expected_thread[index], &info);
}

static int by_signal(const void *a, const void *b) {
  const siginfo_t *x = a, *y = b;
  return x->si_signo - y->si_signo;
}

static void compare(const char *who, struct queue *expected, struct queue *got) {
  CHECK_EQ("number of pending signals of %s", expected->count, got->count, who);
  for (int i = 0; i < expected->count && i < got->count; i++) {
    CHECK_EQ("number of signal %d of %s", expected->info[i].si_signo, got->info[i].si_signo, i, who);
    CHECK_BYTES("siginfo %d of %s (signal %d)", &expected->info[i], &got->info[i], 48, i, who, expected->info[i].si_signo);
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  sigfillset(&all);
  sigdelset(&all, SIGKILL);
  sigdelset(&all, SIGSTOP);
  MUST0(pthread_sigmask(SIG_SETMASK, &all, NULL));
  static const int numbers[] = {SIGINT, SIGUSR2, SIGALRM};
  sigemptyset(&of_threads);
  for (int i = 0; i < 3; i++) sigaddset(&of_threads, numbers[i]);
  sigaddset(&of_threads, SIGRTMIN + 7);
  sigaddset(&of_threads, SIGRTMAX - 1);
  for (long i = 0; i < 2; i++) MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
  for (int i = 0; i < 2; i++)
    while (!atomic_load(&tids[i])) check_sleep_ms(1);

  /* standard signals first: the kernel delivers the lowest number first, so they are queued in that order here */
  to_process(SIGHUP, SI_QUEUE, 1);
  to_process(SIGUSR1, SI_TIMER, 2);
  to_process(SIGTERM, SI_MESGQ, 3);
  to_process(SIGCHLD, SI_ASYNCIO, 4);
  for (int i = 0; i < 5; i++) to_process(SIGRTMIN + 2, SI_QUEUE, 100 + i);
  for (int i = 0; i < 3; i++) to_process(SIGRTMIN + 5, -60 - i, 200 + i);
  to_process(SIGRTMAX, SI_QUEUE, 300);
  for (int t = 0; t < 2; t++) {
    to_thread(t, SIGINT, SI_QUEUE, 400 + t);
    to_thread(t, SIGUSR2, SI_SIGIO, 410 + t);
    for (int i = 0; i < 4 + t; i++) to_thread(t, SIGRTMIN + 7, SI_QUEUE, 500 + 10 * t + i);
    to_thread(t, SIGRTMAX - 1, -1000, 600 + t);
  }
  /* what the kernel itself fills in */
  siginfo_t info;
  memset(&info, 0, sizeof(info));
  info.si_signo = SIGQUIT, info.si_code = SI_USER, info.si_pid = getpid(), info.si_uid = getuid();
  MUST(kill(getpid(), SIGQUIT));
  push(&expected_process, &info);
  memset(&info, 0, sizeof(info));
  info.si_signo = SIGALRM, info.si_code = SI_TKILL, info.si_pid = getpid(), info.si_uid = getuid();
  MUST(syscall(SYS_tgkill, getpid(), tids[0], SIGALRM));
  push(&expected_thread[0], &info);
  memset(&info, 0, sizeof(info));
  info.si_signo = SIGPIPE, info.si_code = SI_TKILL, info.si_pid = getpid(), info.si_uid = getuid();
  /* to the main thread itself, which drains it together with the process's */
  MUST(syscall(SYS_tgkill, getpid(), getpid(), SIGPIPE));
  push(&expected_process, &info);
  qsort(expected_thread[0].info, (size_t)expected_thread[0].count, sizeof(info), by_signal);
  /* the main thread takes its own signal first, then those of the process by number */
  siginfo_t own = expected_process.info[--expected_process.count];
  qsort(expected_process.info, (size_t)expected_process.count, sizeof(info), by_signal);
  memmove(expected_process.info + 1, expected_process.info, (size_t)expected_process.count * sizeof(info));
  expected_process.info[0] = own;
  expected_process.count++;

  check_ready();

  drain(&got_process, &all);
  for (int i = 0; i < 2; i++) MUST0(pthread_join(threads[i], NULL));
  compare("the process", &expected_process, &got_process);
  compare("thread 0", &expected_thread[0], &got_thread[0]);
  compare("thread 1", &expected_thread[1], &got_thread[1]);
  return check_finish();
}
