/*
 * Sessions and process groups: own ones, inherited ones, groups and sessions whose leader is gone, a group that was
 * joined, a session whose leader is a zombie.
 */
#include "tree.h"

static char members[16][64];
static int count;
static pid_t joined;

static void own_session(void) { MUST(setsid()); }
static void own_group(void) { MUST(setpgid(0, 0)); }
static void join_group(void) { MUST(setpgid(0, joined)); }
/** Goes on as the child of a leader that ends, in a session and a group without leader. */
static void leave_leader(void) {
  pid_t leader = getpid();
  if (MUST(fork()) != 0) _exit(3);
  while (getppid() == leader) check_sleep_ms(1);
}
static void dead_session(void) { own_session(), leave_leader(); }
static void dead_group(void) { own_group(), leave_leader(); }
static void dead_session_own_group(void) { dead_session(), own_group(); }

/** A member that finds its place, holds it, and compares it. `child` may be the name of one of its own. */
static pid_t member(const char *name, void (*find)(void), const char *child, void (*child_find)(void)) {
  snprintf(members[count++], sizeof(members[0]), "%s", name);
  pid_t pid = tree_fork("%s", name), below = 0;
  if (pid) {
    tree_await(name);
    return pid;
  }
  if (find) find();
  if (child) below = member(child, child_find, NULL, NULL);
  struct tree_place place = tree_place();
  tree_settled();
  tree_check_place(place);
  if (below) tree_wait(below, W_EXITCODE(0, 0));
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* children of dead parents come here */
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  member("inherits", NULL, NULL, NULL);
  member("session", own_session, "in-session", NULL);
  member("session-too", own_session, "group-in-session", own_group);
  joined = member("group", own_group, NULL, NULL);
  member("joined", join_group, NULL, NULL);
  pid_t dead[] = {member("dead-session", dead_session, NULL, NULL), member("dead-group", dead_group, NULL, NULL),
                  member("dead-session-own-group", dead_session_own_group, NULL, NULL)};
  for (int i = 0; i < 3; i++) MUST(waitpid(dead[i], NULL, 0));
  pid_t zombie = member("zombie-session", dead_session, NULL, NULL);
  tree_await_state(zombie, 'Z');
  struct tree_place place = tree_place();
  check_ready();
  tree_check_place(place);
  tree_wait(zombie, W_EXITCODE(3, 0));
  for (int i = 0; i < count; i++) tree_collect(members[i]);
  tree_collect("in-session"), tree_collect("group-in-session");
  pid_t pid;
  int status, reaped = 0;
  while ((pid = waitpid(-1, &status, 0)) > 0) {
    CHECK_EQ("status of %d", 0, status, pid);
    reaped++;
  }
  CHECK_EQ("children that ended", count, reaped);
  return check_finish();
}
