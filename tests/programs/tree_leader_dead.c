/*
 * Processes whose first thread has ended while others live: the parent sees no end of them before the last thread
 * has ended; their children are theirs still.
 */
#include "tree.h"

static int grandchild_status = -1;
static pid_t grandchild;

static void *survivor(void *unused) {
  (void)unused;
  tree_await_state(getpid(), 'Z');
  pid_t tid = check_tid();
  struct tree_place place = tree_place();
  tree_settled();
  tree_check_place(place);
  CHECK_EQ("state of the leader", 'Z', tree_state(getpid()));
  CHECK_EQ("tid", tid, check_tid());
  CHECK_EQ("waitpid", grandchild, waitpid(grandchild, &grandchild_status, 0));
  CHECK_EQ("status of the child", W_EXITCODE(6, 0), grandchild_status);
  tree_report(23);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pid_t child = tree_fork("leaderless");
  if (child == 0) {
    grandchild = tree_fork("below");
    if (grandchild == 0) {
      tree_settled();
      tree_report(6);
    }
    tree_await("below");
    pthread_t id;
    MUST0(pthread_create(&id, NULL, survivor, NULL));
    syscall(SYS_exit, 55);
  }
  tree_await("leaderless");
  check_ready();
  tree_collect("below"), tree_collect("leaderless");
  tree_wait(child, W_EXITCODE(23, 0));
  return check_finish();
}
