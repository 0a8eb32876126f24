/*
 * SIGCHLD: one that is pending stays pending, with what it tells; none appears where there was none, whether it is
 * handled, ignored or blocked; and those that come later come as before (SA_NOCLDSTOP, SA_NOCLDWAIT, SIG_IGN).
 */
#include "tree.h"

static volatile sig_atomic_t seen;
static volatile siginfo_t last;
static void on_child(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  last = *info;
  seen++;
}
static void handle(int flags) {
  MUST(sigaction(SIGCHLD, &(struct sigaction){.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART | flags}, NULL));
}
static void block(void) {
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGCHLD);
  MUST(sigprocmask(SIG_BLOCK, &set, NULL));
}
/** A child that stays, or has the state told by a letter: Z, T. */
static pid_t make(char state) {
  pid_t pid = (pid_t)MUST(fork());
  if (pid == 0) {
    if (state == 'Z') _exit(21);
    for (;;) {
      if (state == 'T') kill(getpid(), SIGSTOP);
      check_sleep_ms(1000);
    }
  }
  tree_await_state(pid, state);
  return pid;
}

/** Has seen one SIGCHLD of each when they came: none must come again. */
__attribute__((noreturn)) static void handles(void) {
  handle(0);
  pid_t zombie = make('Z'), stopped = make('T'), runs = make('S');
  CHECK_EQ("SIGCHLD while building", 2, seen);
  tree_settled();
  CHECK_EQ("SIGCHLD after building", 2, seen);
  kill(runs, SIGKILL);
  for (int i = 0; i < 5000 && seen < 3; i++) check_sleep_ms(1);
  CHECK_EQ("SIGCHLD when a child ends", 3, seen);
  CHECK_EQ("its si_pid", runs, last.si_pid);
  CHECK_EQ("its si_code", CLD_KILLED, last.si_code);
  tree_wait(zombie, W_EXITCODE(21, 0)), tree_wait(runs, SIGKILL), tree_end(stopped);
  tree_report(0);
}
/** One is pending: of the zombie, or of the stopped one. */
__attribute__((noreturn)) static void blocks(char state) {
  handle(0);
  block();
  pid_t child = make(state), runs = make('S');
  CHECK_EQ("SIGCHLD while building", 0, seen);
  tree_settled();
  sigset_t set;
  siginfo_t info = {0};
  sigemptyset(&set), sigaddset(&set, SIGCHLD);
  CHECK_EQ("SIGCHLD is pending", SIGCHLD, sigtimedwait(&set, &info, &(struct timespec){0, 0}));
  CHECK_EQ("its si_pid", child, info.si_pid);
  CHECK_EQ("its si_code", state == 'Z' ? CLD_EXITED : CLD_STOPPED, info.si_code);
  CHECK_EQ("its si_status", state == 'Z' ? 21 : SIGSTOP, info.si_status);
  CHECK_EQ("another SIGCHLD", -1, sigtimedwait(&set, &info, &(struct timespec){0, 0}));
  if (state == 'Z') tree_wait(child, W_EXITCODE(21, 0));
  else tree_end(child);
  tree_end(runs);
  tree_report(0);
}
/** Blocked, and taken before: none is pending. */
__attribute__((noreturn)) static void takes(void) {
  handle(0);
  block();
  sigset_t set;
  siginfo_t info = {0};
  sigemptyset(&set), sigaddset(&set, SIGCHLD);
  pid_t zombie = make('Z');
  MUST(sigtimedwait(&set, &info, &(struct timespec){5, 0}));
  pid_t stopped = make('T');
  MUST(sigtimedwait(&set, &info, &(struct timespec){5, 0}));
  tree_settled();
  CHECK_EQ("SIGCHLD", -1, sigtimedwait(&set, &info, &(struct timespec){0, 100000000}));
  tree_wait(zombie, W_EXITCODE(21, 0)), tree_end(stopped);
  tree_report(0);
}
/** Children that end leave nothing; those that had ended before SIGCHLD was ignored are still there. */
__attribute__((noreturn)) static void ignores(bool by_flag) {
  pid_t zombie = make('Z'), runs = make('S');
  if (by_flag) handle(SA_NOCLDWAIT);
  else MUST(signal(SIGCHLD, SIG_IGN) == SIG_ERR ? -1 : 0);
  tree_settled();
  CHECK_EQ("SIGCHLD", 0, seen);
  CHECK_EQ("state of the zombie", 'Z', tree_state(zombie));
  CHECK_EQ("state of the other", 'S', tree_state(runs));
  tree_wait(zombie, W_EXITCODE(21, 0));
  kill(runs, SIGKILL);
  CHECK_EQ("waitpid of a child that leaves nothing", -1, waitpid(runs, NULL, 0));
  // waitpid tells before the pid is quite free
  for (int i = 0; i < 1000 && kill(runs, 0) == 0; i++) check_sleep_ms(1);
  CHECK_EQ("kill of it", -1, kill(runs, 0));
  CHECK_EQ("SIGCHLD when a child ends", by_flag, seen);
  tree_report(0);
}
/** SA_NOCLDSTOP: not told when children stop and go on. */
__attribute__((noreturn)) static void unaware(void) {
  handle(SA_NOCLDSTOP);
  pid_t stopped = make('T'), runs = make('S');
  tree_settled();
  kill(stopped, SIGCONT), kill(runs, SIGSTOP);
  for (int i = 0; i < 5000 && tree_state(runs) != 'T'; i++) check_sleep_ms(1);
  CHECK_EQ("SIGCHLD", 0, seen);
  /* it stops itself again whenever it runs */
  kill(stopped, SIGKILL);
  for (int i = 0; i < 5000 && !seen; i++) check_sleep_ms(1);
  CHECK_EQ("SIGCHLD when a child ends", 1, seen);
  tree_wait(stopped, SIGKILL), tree_end(runs);
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  static const char *const names[] = {"handles", "blocks-zombie", "blocks-stopped", "takes", "ignores", "ignores-by-flag", "unaware"};
  enum { COUNT = sizeof(names) / sizeof(names[0]) };
  handle(0);
  pid_t pids[COUNT];
  for (int i = 0; i < COUNT; i++) {
    pids[i] = tree_fork("%s", names[i]);
    if (pids[i]) {
      tree_await(names[i]);
      continue;
    }
    signal(SIGCHLD, SIG_DFL);
    switch (i) {
      case 0: handles();
      case 1: blocks('Z');
      case 2: blocks('T');
      case 3: takes();
      case 4: ignores(false);
      case 5: ignores(true);
      default: unaware();
    }
  }
  check_ready();
  /* the root's own: no child of it has ended before go; from now on they do */
  for (int i = 0; i < COUNT; i++) {
    tree_collect(names[i]);
    tree_wait(pids[i], 0);
  }
  CHECK("SIGCHLD of the root: 1 to %d", seen >= 1 && seen <= COUNT, COUNT);
  return check_finish();
}
