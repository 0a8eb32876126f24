/*
 * Children of a thread that is not the first: only that thread sees them with __WNOTHREAD, and its end, not that of
 * the process, sends them their parent-death signal.
 */
#include "tree.h"

static pid_t child, zombie, below;
static atomic_int built;
static struct {
  pid_t own, of_leader;
} seen;

static volatile sig_atomic_t got;
static void on_signal(int sig) { got = sig; }

static void *parent_below(void *unused) {
  pid_t pid = tree_fork("below-below");
  if (pid == 0) {
    tree_settled();
    tree_report(3);
  }
  tree_wait_go();
  int status = -1;
  CHECK_EQ("the thread below waits for its child", pid, waitpid(pid, &status, __WNOTHREAD));
  CHECK_EQ("status of the child below", W_EXITCODE(3, 0), status);
  return unused;
}

static void *run(void *argument) {
  pid_t of_leader = *(pid_t *)argument;
  child = tree_fork("of-thread");
  if (child == 0) {
    signal(SIGUSR1, on_signal);
    MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    tree_settled();
    CHECK_EQ("signal before the thread ended", 0, got);
    check_write_file("report-go-on", "ok\n", 3);
    for (int i = 0; i < 5000 && !got; i++) check_sleep_ms(1);
    CHECK_EQ("signal after the thread ended", SIGUSR1, got);
    tree_report(0);
  }
  tree_await("of-thread");
  /* one that has ended, and one with a thread that has a child itself */
  zombie = tree_fork("ended");
  if (zombie == 0) _exit(7);
  siginfo_t end = {0};
  MUST0(waitid(P_PID, (id_t)zombie, &end, WEXITED | WNOWAIT));
  below = tree_fork("below");
  if (below == 0) {
    pthread_t id;
    MUST0(pthread_create(&id, NULL, parent_below, NULL));
    pthread_join(id, NULL);
    tree_report(0);
  }
  tree_await("below-below");
  atomic_store(&built, 1);
  check_wait_go();
  siginfo_t info = {0};
  seen.own = waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD) ? -1 : 1;
  seen.of_leader = waitid(P_PID, (id_t)of_leader, &info, WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD) ? -1 : 1;
  while (!tree_exists("report-", "go-on")) check_sleep_ms(1);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pid_t of_leader = tree_fork("of-leader");
  if (of_leader == 0) {
    tree_settled();
    tree_report(0);
  }
  tree_await("of-leader");
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, &of_leader));
  while (!atomic_load(&built)) check_sleep_ms(1);
  check_ready();
  siginfo_t info = {0};
  CHECK_EQ("the leader sees the thread's child alone", -1,
           waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD));
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("the thread sees its child", 1, seen.own);
  CHECK_EQ("the thread sees the leader's child alone", -1, seen.of_leader);
  tree_collect("of-thread"), tree_collect("of-leader");
  tree_collect("below-below"), tree_collect("below");
  tree_wait(child, 0), tree_wait(of_leader, 0), tree_wait(below, 0);
  tree_wait(zombie, W_EXITCODE(7, 0));
  return check_finish();
}
