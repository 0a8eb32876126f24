/*
 * Zombies: how each came to its end, with which credentials, in which group, with which signal to its parent; of the
 * root and of a child; a zombie that has threads no more.
 */
#include "tree.h"
#include <sys/resource.h>

struct zombie {
  pid_t pid;
  int status, exit_signal;
  uid_t uid;
  siginfo_t info;
};

static void *end_process(void *unused) {
  (void)unused;
  _exit(99);
}

static int exit_42(void *unused) {
  (void)unused;
  return 42;
}

static int make(struct zombie *z) {
  const int exits[] = {0, 1, 7, 127, 128, 255}, signals[] = {SIGKILL, SIGTERM, SIGSEGV, SIGUSR1, SIGRTMIN + 3};
  int n = 0;
  for (size_t i = 0; i < sizeof(exits) / sizeof(int); i++, n++) {
    z[n].status = W_EXITCODE(exits[i], 0), z[n].exit_signal = SIGCHLD;
    if ((z[n].pid = (pid_t)MUST(fork())) == 0) _exit(exits[i]);
  }
  for (size_t i = 0; i < sizeof(signals) / sizeof(int); i++, n++) {
    z[n].status = W_EXITCODE(0, signals[i]), z[n].exit_signal = SIGCHLD;
    if ((z[n].pid = (pid_t)MUST(fork())) == 0) {
      signal(signals[i], SIG_DFL);
      kill(getpid(), signals[i]);
      pause();
    }
  }
  /* in a session of its own, and in a group of its own */
  z[n].status = W_EXITCODE(11, 0), z[n].exit_signal = SIGCHLD;
  if ((z[n++].pid = (pid_t)MUST(fork())) == 0) setsid(), _exit(11);
  z[n].status = W_EXITCODE(12, 0), z[n].exit_signal = SIGCHLD;
  if ((z[n++].pid = (pid_t)MUST(fork())) == 0) setpgid(0, 0), _exit(12);
  /* as another user, under another name */
  z[n].status = W_EXITCODE(13, 0), z[n].exit_signal = SIGCHLD, z[n].uid = 12345;
  if ((z[n++].pid = (pid_t)MUST(fork())) == 0) {
    prctl(PR_SET_NAME, "another (name)");
    if (setgid(2345) || setuid(12345)) _exit(98);
    _exit(13);
  }
  /* ended by a thread that is not its first */
  z[n].status = W_EXITCODE(99, 0), z[n].exit_signal = SIGCHLD;
  if ((z[n++].pid = (pid_t)MUST(fork())) == 0) {
    pthread_t id;
    pthread_create(&id, NULL, end_process, NULL);
    for (;;) pause();
  }
  /* without a signal to the parent, and with another one than SIGCHLD */
  z[n].status = W_EXITCODE(42, 0), z[n].exit_signal = 0;
  z[n++].pid = tree_clone(exit_42, 0, NULL);
  z[n].status = W_EXITCODE(42, 0), z[n].exit_signal = SIGUSR2;
  z[n++].pid = tree_clone(exit_42, SIGUSR2, NULL);
  for (int i = 0; i < n; i++) MUST(waitid(P_PID, (id_t)z[i].pid, &z[i].info, WEXITED | WNOWAIT | __WALL));
  return n;
}

static void compare(struct zombie *z, int n) {
  for (int i = 0; i < n; i++) {
    siginfo_t now;
    memset(&now, 0, sizeof(now));
    /* WNOHANG: a process that lives again would be waited for in vain */
    CHECK_EQ("waitid(%d)", 0, waitid(P_PID, (id_t)z[i].pid, &now, WEXITED | WNOWAIT | WNOHANG | __WALL), z[i].pid);
    CHECK_EQ("si_pid of %d", z[i].info.si_pid, now.si_pid, z[i].pid);
    CHECK_EQ("si_code of %d", z[i].info.si_code, now.si_code, z[i].pid);
    CHECK_EQ("si_status of %d", z[i].info.si_status, now.si_status, z[i].pid);
    CHECK_EQ("si_uid of %d", z[i].uid, now.si_uid, z[i].pid);
    /* only __WCLONE or __WALL sees those that tell by another signal than SIGCHLD */
    pid_t plain = waitpid(z[i].pid, NULL, WNOHANG);
    if (z[i].exit_signal != SIGCHLD) {
      CHECK_EQ("waitpid(%d) without __WALL", -1, plain, z[i].pid);
      tree_wait(z[i].pid, z[i].status);
    } else {
      CHECK_EQ("waitpid(%d)", z[i].pid, plain, z[i].pid);
    }
  }
  CHECK_EQ("further children", -1, waitpid(-1, NULL, WNOHANG | __WALL));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  signal(SIGUSR2, SIG_IGN);
  MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
  struct zombie own[32] = {0}, others[32] = {0};
  pid_t child = tree_fork("child");
  if (child == 0) {
    int n = make(others);
    tree_settled();
    compare(others, n);
    tree_report(0);
  }
  tree_await("child");
  int n = make(own);
  check_ready();
  tree_collect("child");
  tree_wait(child, W_EXITCODE(0, 0));
  compare(own, n);
  return check_finish();
}
