/*
 * Children of dead parents, and who took them: a chain of subreapers (root, a, and a child of a), each of which gets
 * its own orphans, now and later; a process that inherits no subreaping from its parent.
 */
#include "tree.h"

static pid_t root, a, inner;

static int subreaper(void) {
  int set = -1;
  prctl(PR_GET_CHILD_SUBREAPER, &set);
  return set;
}

/** A grandchild of the caller whose parent has ended and is reaped; it expects the caller to be its parent then. */
static pid_t orphan(const char *name, pid_t expected_parent) {
  pid_t middle = (pid_t)MUST(fork());
  if (middle == 0) {
    pid_t pid = tree_fork("%s", name);
    if (pid) _exit(0);
    while (getppid() != expected_parent) check_sleep_ms(1);
    struct tree_place place = tree_place();
    tree_settled();
    tree_check_place(place);
    CHECK_EQ("child subreaper", 0, subreaper());
    tree_report(5);
  }
  MUST(waitpid(middle, NULL, 0));
  return tree_await(name);
}

/** A child that, told so by `go`, leaves an orphan: it must come to the same one as before. */
static pid_t later(const char *name, pid_t expected_parent) {
  pid_t pid = tree_fork("%s", name);
  if (pid) {
    tree_await(name);
    return pid;
  }
  tree_settled();
  pid_t self = getpid(), child = (pid_t)fork();
  if (child > 0) _exit(0);
  for (int i = 0; i < 5000 && getppid() == self; i++) check_sleep_ms(1);
  CHECK_EQ("the parent of an orphan made later", expected_parent, getppid());
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  root = getpid();
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  pid_t orphan_of_root = orphan("orphan-of-root", root);
  a = tree_fork("a");
  if (a == 0) {
    a = getpid();
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t orphan_of_a = orphan("orphan-of-a", a);
    pid_t later_of_a = later("later-of-a", a);
    inner = tree_fork("inner");
    if (inner == 0) {
      inner = getpid();
      MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
      pid_t orphan_of_inner = orphan("orphan-of-inner", inner);
      /* a plain process between them that does not take orphans */
      pid_t plain = tree_fork("plain");
      if (plain == 0) {
        pid_t below = orphan("orphan-past-plain", inner);
        (void)below;
        tree_settled();
        CHECK_EQ("child subreaper", 0, subreaper());
        CHECK_EQ("children of the plain one", -1, waitpid(-1, NULL, WNOHANG));
        tree_report(0);
      }
      pid_t past = tree_await("orphan-past-plain");
      tree_await("plain");
      tree_settled();
      CHECK_EQ("child subreaper", 1, subreaper());
      tree_wait(orphan_of_inner, W_EXITCODE(5, 0));
      tree_wait(past, W_EXITCODE(5, 0));
      tree_wait(plain, W_EXITCODE(0, 0));
      tree_report(0);
    }
    tree_await("inner");
    tree_settled();
    CHECK_EQ("child subreaper", 1, subreaper());
    tree_wait(orphan_of_a, W_EXITCODE(5, 0));
    tree_wait(later_of_a, W_EXITCODE(0, 0));
    tree_wait(inner, W_EXITCODE(0, 0));
    tree_collect("later-of-a");
    while (waitpid(-1, NULL, 0) > 0) continue;
    tree_report(0);
  }
  tree_await("a");
  pid_t later_of_root = later("later-of-root", root);
  check_ready();
  CHECK_EQ("child subreaper", 1, subreaper());
  static const char *const names[] = {"a",           "inner",         "orphan-of-root",  "orphan-of-a",
                                      "later-of-a",  "later-of-root", "orphan-of-inner", "orphan-past-plain",
                                      "plain"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) tree_collect(names[i]);
  tree_wait(orphan_of_root, W_EXITCODE(5, 0));
  tree_wait(later_of_root, W_EXITCODE(0, 0));
  tree_wait(a, W_EXITCODE(0, 0));
  while (waitpid(-1, NULL, 0) > 0) continue;
  return check_finish();
}
