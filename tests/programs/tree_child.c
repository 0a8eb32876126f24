/* One child: its ids, its memory and that of its parent, which began as the same, and how it ends. */
#include "tree.h"

#define SIZE (64 * 4096)

int main(int argc, char **argv) {
  check_start(argc, argv);
  char *memory = (char *)MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  check_fill(memory, SIZE, 1);
  pid_t root = getpid();
  pid_t child = tree_fork("child");
  if (child == 0) {
    check_fill(memory, SIZE / 2, 2);
    struct tree_place place = tree_place();
    MUST(place.parent == root ? 0 : -1);
    tree_settled();
    tree_check_place(place);
    check_filled("memory written by the child", memory, SIZE / 2, 2);
    char *whole = malloc(SIZE);
    check_fill(whole, SIZE, 1);
    CHECK_BYTES("memory inherited by the child", whole + SIZE / 2, memory + SIZE / 2, SIZE / 2);
    tree_report(17);
  }
  tree_await("child");
  struct tree_place place = tree_place();
  check_ready();
  tree_check_place(place);
  check_filled("memory of the parent", memory, SIZE, 1);
  tree_collect("child");
  tree_wait(child, W_EXITCODE(17, 0));
  CHECK_EQ("further children", -1, waitpid(-1, NULL, __WALL));
  return check_finish();
}
