/* memfds of huge pages: open, mapped shared in two processes, sealed */
#include "tree.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif
#define HUGE (2u << 20)
#define PAGES 3u

static char *map(int fd) { return (char *)MUST(mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)); }

int main(int argc, char **argv) {
  check_start(argc, argv);
  int empty = (int)MUST(memfd_create("empty", MFD_HUGETLB | MFD_HUGE_2MB));
  int some = (int)MUST(memfd_create("some", MFD_HUGETLB | MFD_HUGE_2MB | MFD_ALLOW_SEALING));
  MUST(ftruncate(some, PAGES * HUGE));
  MUST(fcntl(some, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
  char *memory = mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, some, 0);
  bool mapped = memory != MAP_FAILED;
  if (!mapped) check_note("no huge pages: %s", strerror(errno));
  else check_fill(memory + 5000, HUGE, 1), check_fill(memory + 2 * HUGE + 4096, 100, 2);
  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    if (mapped) {
      check_filled("the child's view", memory + 5000, HUGE, 1);
      strcpy(memory + 2 * HUGE + 8192, "from the child");
    }
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  tree_collect("child");
  tree_wait(child, 0);
  struct stat st;
  struct statfs fs;
  CHECK_EQ("fstatfs", 0, fstatfs(some, &fs));
  CHECK_EQ("bytes of a page", HUGE, fs.f_bsize);
  CHECK_EQ("fstat", 0, fstat(some, &st));
  CHECK_EQ("size", PAGES * HUGE, st.st_size);
  CHECK_EQ("fstat of the empty one", 0, fstat(empty, &st));
  CHECK_EQ("size of the empty one", 0, st.st_size);
  CHECK_EQ("seals", F_SEAL_GROW | F_SEAL_SHRINK, fcntl(some, F_GET_SEALS));
  if (mapped) {
    check_filled("first pages", memory + 5000, HUGE, 1);
    check_filled("last page", memory + 2 * HUGE + 4096, 100, 2);
    CHECK_STRING("what the child has stored", "from the child", memory + 2 * HUGE + 8192);
    char *again = map(some);
    check_filled("mapped again", again + 5000, HUGE, 1);
    again[HUGE + 1] = 'x';
    CHECK_EQ("one object", 'x', memory[HUGE + 1]);
  }
  return check_finish();
}
