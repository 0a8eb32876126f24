/*
 * Flocks whose descriptors are closed, and that only mappings of their files keep: exclusive and shared, also of a child;
 * they end with the mappings.
 */
#include "tree.h"
#include <sys/file.h>
#include <sys/mman.h>

static char *mapped(const char *name, int how, int kind) {
  char path[4400];
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
  MUST(ftruncate(fd, 8192));
  if (how) MUST(flock(fd, how));
  char *memory = (char *)MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE, kind, fd, 0));
  close(fd);
  return memory;
}
/** What a stranger is told who wants it so: 0, or an error. */
static int tried(const char *name, int how) {
  char path[4400];
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  int fd = (int)MUST(open(path, O_RDONLY));
  int error = flock(fd, how | LOCK_NB) == 0 ? 0 : errno;
  close(fd);
  return error;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char *exclusive = mapped("exclusive", LOCK_EX, MAP_SHARED), *shared = mapped("shared", LOCK_SH, MAP_PRIVATE);
  mapped("free", 0, MAP_SHARED);
  pid_t child = tree_fork("child");
  if (child == 0) {
    char *own = mapped("of the child", LOCK_EX, MAP_SHARED);
    MUST(munmap(exclusive, 8192));
    tree_settled();
    CHECK_EQ("its own", EWOULDBLOCK, tried("of the child", LOCK_SH));
    MUST(munmap(own, 8192));
    CHECK_EQ("its own when it is gone", 0, tried("of the child", LOCK_EX));
    MUST(munmap(shared, 8192));
    tree_report(0);
  }
  tree_await("child");

  check_ready();

  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("exclusive, for a reader", EWOULDBLOCK, tried("exclusive", LOCK_SH));
  CHECK_EQ("shared, for a reader", 0, tried("shared", LOCK_SH));
  CHECK_EQ("shared, for a writer", EWOULDBLOCK, tried("shared", LOCK_EX));
  CHECK_EQ("free", 0, tried("free", LOCK_EX));
  MUST(munmap(exclusive, 8192)), MUST(munmap(shared, 8192));
  CHECK_EQ("exclusive when it is gone", 0, tried("exclusive", LOCK_EX));
  CHECK_EQ("shared when it is gone", 0, tried("shared", LOCK_EX));
  return check_finish();
}
