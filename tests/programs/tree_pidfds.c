/*
 * pidfds of tasks of the tree: a child, the parent, the process itself, a zombie, one that was reaped, a thread,
 * one that shares its open file with another process; what each tells by poll, waitid and fdinfo.
 */
#include "tree.h"
#include <poll.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
#define PIDFD_NONBLOCK_ O_NONBLOCK

static int open_pid(pid_t pid, unsigned flags) { return (int)MUST(syscall(SYS_pidfd_open, pid, flags)); }

static pid_t thread_tid;
static atomic_int thread_ready;
static void *run(void *unused) {
  (void)unused;
  thread_tid = check_tid();
  atomic_store(&thread_ready, 1);
  check_wait_go();
  for (;;) check_sleep_ms(1000);
  return NULL;
}

static void expect(const char *name, int fd, pid_t pid, short events) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
  const char *line = check_proc(path, "Pid:");
  CHECK_EQ("%s: Pid of fdinfo", pid, line[0] ? atoi(line + 4) : 0, name);
  struct pollfd ends = {.fd = fd, .events = POLLIN};
  CHECK("%s: poll", poll(&ends, 1, 0) >= 0, name);
  CHECK_EQ("%s: poll events", events, ends.revents, name);
  CHECK_EQ("%s: FD_CLOEXEC", FD_CLOEXEC, fcntl(fd, F_GETFD), name);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&thread_ready)) check_sleep_ms(1);
  pid_t root = getpid(), child, zombie, reaped;
  if ((zombie = (pid_t)MUST(fork())) == 0) _exit(9);
  if ((reaped = (pid_t)MUST(fork())) == 0) pause();
  int of_reaped = open_pid(reaped, 0), of_zombie = open_pid(zombie, PIDFD_NONBLOCK_), of_self = open_pid(root, 0);
  int of_thread = open_pid(thread_tid, PIDFD_THREAD), again = (int)MUST(dup(of_zombie));
  MUST(fcntl(again, F_SETFD, FD_CLOEXEC));
  tree_await_state(zombie, 'Z');
  kill(reaped, SIGKILL);
  MUST(waitpid(reaped, NULL, 0));
  child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    /* inherited: the same open file as the root's */
    expect("inherited, of the root", of_self, root, 0);
    expect("inherited, of the thread", of_thread, thread_tid, 0);
    check_write_file("report-looked", "ok\n", 3);
    CHECK_EQ("kcmp of the inherited descriptor", 0, syscall(SYS_kcmp, root, getpid(), 0 /* KCMP_FILE */, of_self, of_self));
    siginfo_t info = {0};
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    tree_tell();
    check_write_file("report-blocked", "ok\n", 3);
    CHECK_EQ("signal by pidfd", SIGUSR1, sigtimedwait(&set, &info, &(struct timespec){20, 0}));
    CHECK_EQ("si_pid", root, info.si_pid);
    tree_report(27);
  }
  tree_await("child");
  int of_child = open_pid(child, 0);
  check_ready();
  tree_collect("looked"), tree_collect("blocked");
  expect("child", of_child, child, 0);
  expect("self", of_self, root, 0);
  expect("thread", of_thread, thread_tid, 0);
  expect("zombie", of_zombie, zombie, POLLIN);
  expect("zombie, again", again, zombie, POLLIN);
  expect("reaped", of_reaped, -1, POLLIN | POLLHUP);
  CHECK("O_NONBLOCK of the zombie's", fcntl(of_zombie, F_GETFL) & O_NONBLOCK);
  CHECK("O_NONBLOCK of the child's", !(fcntl(of_child, F_GETFL) & O_NONBLOCK));
  CHECK_EQ("kcmp of the duplicate", 0, syscall(SYS_kcmp, root, root, 0, of_zombie, again));
  CHECK_EQ("signal to the child", 0, syscall(SYS_pidfd_send_signal, of_child, SIGUSR1, NULL, 0));
  CHECK_EQ("signal to the reaped one", -1, syscall(SYS_pidfd_send_signal, of_reaped, 0, NULL, 0));
  siginfo_t info = {0};
  CHECK_EQ("waitid of the zombie by its pidfd", 0, waitid((idtype_t)3 /* P_PIDFD */, (id_t)of_zombie, &info, WEXITED));
  CHECK_EQ("its pid", zombie, info.si_pid);
  CHECK_EQ("its status", 9, info.si_status);
  struct pollfd ends = {.fd = of_child, .events = POLLIN};
  CHECK_EQ("poll until the child has ended", 1, poll(&ends, 1, 20000));
  tree_collect("child");
  tree_wait(child, W_EXITCODE(27, 0));
  return check_finish();
}
