/*
 * Processes whose first thread has ended while others live: the parent sees no end of them before the last thread
 * has ended; their children are theirs still, and are not told a second time that it has ended.
 */
#include "tree.h"

#define FIRST 55
#define ALL 23

static pid_t grandchild;
static bool ends_alone;

static void *survivor(void *unused) {
  (void)unused;
  tree_await_state(getpid(), 'Z');
  pid_t tid = check_tid();
  struct tree_place place = tree_place();
  tree_settled();
  tree_check_place(place);
  CHECK_EQ("state of the leader", 'Z', tree_state(getpid()));
  CHECK_EQ("tid", tid, check_tid());
  int status = -1;
  CHECK_EQ("waitpid", grandchild, waitpid(grandchild, &status, 0));
  CHECK_EQ("status of the child", W_EXITCODE(6, 0), status);
  if (!ends_alone) tree_report(ALL);
  tree_leave_report();
  syscall(SYS_exit, ALL);
  return NULL;
}

static pid_t leaderless(const char *name, bool alone) {
  pid_t child = tree_fork("%s", name);
  if (child == 0) {
    ends_alone = alone;
    grandchild = tree_fork("below-%s", name);
    if (grandchild == 0) {
      tree_await_state(getppid(), 'Z');
      MUST0(prctl(PR_SET_PDEATHSIG, SIGTERM));
      tree_settled();
      tree_report(6);
    }
    pthread_t id;
    MUST0(pthread_create(&id, NULL, survivor, NULL));
    syscall(SYS_exit, FIRST);
  }
  tree_await(name);
  char below[64];
  snprintf(below, sizeof(below), "below-%s", name);
  tree_await(below);
  return child;
}

static volatile sig_atomic_t continued;
static void on_cont(int sig) { continued = sig; }

static void *stops(void *unused) {
  tree_await_state(getpid(), 'Z');
  tree_tell();
  kill(getpid(), SIGSTOP);
  while (!continued) check_sleep_ms(1);
  CHECK("go exists before it goes on", tree_exists("go", ""));
  CHECK_EQ("state of the leader", 'Z', tree_state(getpid()));
  tree_report(0);
  return unused;
}

/* One that job control has stopped, too. */
static pid_t stopped(void) {
  pid_t pid = tree_fork("stopped");
  if (pid == 0) {
    signal(SIGCONT, on_cont);
    pthread_t id;
    MUST0(pthread_create(&id, NULL, stops, NULL));
    syscall(SYS_exit, FIRST);
  }
  tree_await("stopped");
  siginfo_t info;
  MUST0(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT));
  return pid;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pid_t together = leaderless("together", false), alone = leaderless("alone", true), still = stopped();
  check_ready();
  siginfo_t info = {0};
  CHECK_EQ("waitid", 0, waitid(P_PID, (id_t)still, &info, WSTOPPED | WNOHANG));
  CHECK_EQ("what stopped it", SIGSTOP, info.si_status);
  kill(still, SIGCONT);
  tree_collect("stopped"), tree_wait(still, 0);
  tree_collect("below-together"), tree_collect("together");
  tree_wait(together, W_EXITCODE(ALL, 0));
  tree_collect("below-alone"), tree_collect("alone");
  /* since Linux 5.17 that of the last thread; how the first one ended is in /proc only */
  int status;
  MUST(waitpid(alone, &status, 0));
  CHECK("status", status == W_EXITCODE(ALL, 0) || status == W_EXITCODE(FIRST, 0));
  return check_finish();
}
