/*
 * Pending signals between the processes of a tree: of the process and of one thread, from kill, tgkill and sigqueue
 * of a sender that lives, that is a zombie, and that is gone; several of one real-time signal in order.
 */
#include "tree.h"

struct seen {
  int sig, code;
  pid_t pid;
  uid_t uid;
  long value;
};

static void block_all(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
}
/** Takes the next pending signal of this kind; sig 0 when there is none. */
static struct seen take(int sig) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set), sigaddset(&set, sig);
  /* not by the C library, which makes SI_USER of SI_TKILL */
  if (syscall(SYS_rt_sigtimedwait, &set, &info, &(struct timespec){0, 0}, NSIG / 8) != sig) return (struct seen){0};
  return (struct seen){sig, info.si_code, info.si_pid, info.si_uid, (long)info.si_value.sival_ptr};
}
static void expect(struct seen before) {
  struct seen after = take(before.sig);
  CHECK_EQ("signal %d", before.sig, after.sig, before.sig);
  CHECK_EQ("si_code of signal %d", before.code, after.code, before.sig);
  CHECK_EQ("si_pid of signal %d", before.pid, after.pid, before.sig);
  CHECK_EQ("si_uid of signal %d", before.uid, after.uid, before.sig);
  if (before.code == SI_QUEUE) CHECK_EQ("si_value of signal %d", before.value, after.value, before.sig);
}
static void queue(pid_t pid, int sig, long value) {
  MUST(sigqueue(pid, sig, (union sigval){.sival_ptr = (void *)value}));
}

static pid_t root, child, zombie, gone, thread_tid;
static atomic_int thread_ready;
static struct seen thread_seen;
static void *run(void *unused) {
  (void)unused;
  thread_tid = check_tid();
  atomic_store(&thread_ready, 1);
  check_wait_go();
  thread_seen = take(SIGUSR2);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  block_all();
  root = getpid();
  pthread_t id;
  child = tree_fork("child");
  if (child == 0) {
    MUST0(pthread_create(&id, NULL, run, NULL));
    while (!atomic_load(&thread_ready)) check_sleep_ms(1);
    char text[16];
    check_write_file("thread", text, (size_t)snprintf(text, sizeof(text), "%d\n", thread_tid));
    tree_tell();
    queue(root, SIGRTMIN + 2, 1), queue(root, SIGRTMIN + 2, 2), queue(root, SIGRTMIN + 2, 3);
    MUST(kill(root, SIGUSR1));
    char done[] = "settled-sent";
    check_write_file(done, "\n", 1);
    tree_wait_go();
    atomic_store(&check_go_seen, 1);
    MUST0(pthread_join(id, NULL));
    expect((struct seen){SIGTERM, SI_USER, root, 0, 0});
    expect((struct seen){SIGRTMIN + 5, SI_QUEUE, root, 0, -12345678901});
    expect((struct seen){SIGRTMIN + 5, SI_QUEUE, getpid(), 0, 99});
    CHECK_EQ("signal of the thread", SIGUSR2, thread_seen.sig);
    CHECK_EQ("its si_code", SI_TKILL, thread_seen.code);
    CHECK_EQ("its si_pid", root, thread_seen.pid);
    CHECK_EQ("the same signal for the process", 0, take(SIGUSR2).sig);
    sigset_t pending;
    sigpending(&pending);
    for (int sig = 1; sig < NSIG; sig++) CHECK("signal %d is not pending", !sigismember(&pending, sig), sig);
    tree_report(0);
  }
  tree_await("child"), tree_await("sent");
  char path[4300];
  snprintf(path, sizeof(path), "%s/thread", check_dir);
  thread_tid = atoi(check_proc(path, ""));
  MUST(kill(child, SIGTERM));
  queue(child, SIGRTMIN + 5, -12345678901);
  MUST(syscall(SYS_rt_sigqueueinfo, child, SIGRTMIN + 5,
               &(siginfo_t){.si_code = SI_QUEUE, ._sifields._rt = {child, 0, {.sival_ptr = (void *)99}}}));
  MUST(syscall(SYS_tgkill, child, thread_tid, SIGUSR2));
  gone = (pid_t)MUST(fork());
  if (gone == 0) {
    kill(root, SIGHUP);
    _exit(0);
  }
  MUST(waitpid(gone, NULL, 0));
  zombie = (pid_t)MUST(fork());
  if (zombie == 0) {
    kill(root, SIGQUIT);
    _exit(0);
  }
  siginfo_t info;
  MUST(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT));
  check_ready();
  for (long i = 1; i <= 3; i++) expect((struct seen){SIGRTMIN + 2, SI_QUEUE, child, 0, i});
  expect((struct seen){SIGUSR1, SI_USER, child, 0, 0});
  expect((struct seen){SIGHUP, SI_USER, gone, 0, 0});
  expect((struct seen){SIGQUIT, SI_USER, zombie, 0, 0});
  /* of the first of two: one SIGCHLD is pending at a time */
  expect((struct seen){SIGCHLD, CLD_EXITED, gone, 0, 0});
  CHECK_EQ("another SIGUSR1", 0, take(SIGUSR1).sig);
  tree_collect("child");
  tree_wait(child, 0), tree_wait(zombie, 0);
  return check_finish();
}
