/* Anonymous huge pages: shared with a child, private, protected, partly unmapped, without reserve. */
#include "tree.h"
#include <sys/mman.h>

enum { HUGE = 2 << 20 };

static char *map(int flags, size_t pages) {
  return (char *)MUST(mmap(NULL, pages * HUGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char *shared = map(MAP_SHARED, 3), *spare = map(MAP_SHARED | MAP_NORESERVE, 1), *part = map(MAP_SHARED, 3);
  check_fill(shared + 5000, HUGE, 1), check_fill(shared + 2 * HUGE + 4096, 100, 2);
  check_fill(part + HUGE + 77, 1000, 3);
  MUST(munmap(part, HUGE)), MUST(mprotect(part + 2 * HUGE, HUGE, PROT_READ));
  pid_t child = tree_fork("child");
  if (child == 0) {
    char *own = map(MAP_PRIVATE, 1);
    strcpy(own, "of the child alone");
    tree_settled();
    check_filled("the child's view", shared + 5000, HUGE, 1);
    strcpy(shared + 2 * HUGE + 8192, "from the child");
    CHECK_STRING("private", "of the child alone", own);
    tree_report(0);
  }
  /* after the fork, so that the child has none of it */
  char *one = map(MAP_PRIVATE, 2), *two = map(MAP_PRIVATE, 1);
  check_fill(one + HUGE - 5000, 10000, 4);
  check_fill(two, HUGE, 5);
  MUST(mprotect(two, HUGE, PROT_NONE));
  tree_await("child");
  check_ready();
  tree_collect("child"), tree_wait(child, 0);
  check_filled("shared", shared + 5000, HUGE, 1), check_filled("last page", shared + 2 * HUGE + 4096, 100, 2);
  CHECK_STRING("what the child has stored", "from the child", shared + 2 * HUGE + 8192);
  check_filled("what is left of an object", part + HUGE + 77, 1000, 3);
  CHECK_EQ("without reserve", 0, spare[5]);
  check_filled("private", one + HUGE - 5000, 10000, 4);
  MUST(mprotect(two, HUGE, PROT_READ));
  check_filled("private, of no access", two, HUGE, 5);
  one[0] = 'x', shared[0] = 'y', spare[0] = 'z';
  return check_finish();
}
