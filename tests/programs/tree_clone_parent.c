/*
 * CLONE_PARENT: a child that made its own sibling; and the signals by which children tell that they ended, which
 * such a sibling has from the one that made it.
 */
#include "tree.h"

static int sibling(void *name) {
  tree_become(name);
  struct tree_place place = tree_place();
  tree_settled();
  tree_check_place(place);
  tree_report(31);
}
static int maker(void *name) {
  tree_become(name);
  char made[80];
  snprintf(made, sizeof(made), "%s-sibling", tree_name);
  struct tree_place place = tree_place();
  tree_clone(sibling, CLONE_PARENT, made);
  tree_await(made);
  tree_settled();
  tree_check_place(place);
  CHECK_EQ("children of the maker", -1, waitpid(-1, NULL, WNOHANG | __WALL));
  tree_report(30);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  signal(SIGUSR1, SIG_IGN);
  static char *const names[] = {"usual", "other", "silent"};
  const int signals[] = {SIGCHLD, SIGUSR1, 0};
  pid_t made[3], siblings[3];
  for (int i = 0; i < 3; i++) {
    char name[64];
    made[i] = tree_clone(maker, (unsigned long)signals[i], names[i]);
    tree_await(names[i]);
    snprintf(name, sizeof(name), "%s-sibling", names[i]);
    siblings[i] = tree_await(name);
  }
  check_ready();
  for (int i = 0; i < 3; i++) {
    char name[64];
    snprintf(name, sizeof(name), "%s-sibling", names[i]);
    tree_collect(names[i]), tree_collect(name);
    tree_await_state(made[i], 'Z'), tree_await_state(siblings[i], 'Z');
    /* __WCLONE: only those that tell by another signal than SIGCHLD */
    CHECK_EQ("__WCLONE sees %s", i == 0 ? -1 : made[i], waitpid(made[i], NULL, WNOHANG | __WCLONE), names[i]);
    CHECK_EQ("__WCLONE sees %s", i == 0 ? -1 : siblings[i], waitpid(siblings[i], NULL, WNOHANG | __WCLONE), name);
    if (i == 0) tree_wait(made[0], W_EXITCODE(30, 0)), tree_wait(siblings[0], W_EXITCODE(31, 0));
  }
  return check_finish();
}
