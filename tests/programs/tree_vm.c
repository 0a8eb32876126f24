/*
 * Processes that share all memory with their parent: one made by clone(CLONE_VM), one made by vfork, in which the
 * parent stands until the child has ended. What one writes, maps and unmaps is there for the other.
 */
#include "tree.h"

/* shared by all, for they are one address space */
static struct {
  atomic_int number, seen, ended;
  void *mapped;
  pid_t pid, parent;
} shared;

/* Nothing of check.h's report here: it is the root's as well. */
static int sharer(void *unused) {
  (void)unused;
  shared.pid = getpid(), shared.parent = getppid();
  atomic_store(&shared.seen, 1);
  while (atomic_load(&shared.number) != 2) check_sleep_ms(1);
  shared.mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (shared.mapped != MAP_FAILED) strcpy(shared.mapped, "written by the child");
  if (shared.pid != getpid() || shared.parent != getppid()) shared.pid = -1;
  atomic_store(&shared.seen, 2);
  return 14;
}

/** Its own process: its child made by vfork writes into its memory while it stands. */
static void vforker(void) {
  static volatile int written;
  static volatile pid_t child_pid;
  int written_local_before = 5;
  struct tree_place place = tree_place();
  pid_t child = vfork();
  if (child == 0) {
    child_pid = getpid();
    tree_tell();
    tree_wait_go();
    written = 77;
    _exit(child_pid == getpid() && getppid() == place.pid ? 15 : 99);
  }
  tree_check_place(place);
  CHECK_EQ("vfork", child_pid, child);
  CHECK_EQ("what the child has written", 77, written);
  CHECK_EQ("what it has not", 5, written_local_before);
  tree_wait(child, W_EXITCODE(15, 0));
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool vforks = argc > 2;
  pid_t standing = vforks ? tree_fork("vforker") : 0;
  if (vforks && standing == 0) vforker();
  pid_t other = tree_clone(sharer, CLONE_VM | SIGCHLD, NULL);
  while (atomic_load(&shared.seen) != 1) check_sleep_ms(1);
  if (vforks) tree_await("vforker");
  long same = syscall(SYS_kcmp, getpid(), other, 1 /* KCMP_VM */, 0, 0);
  MUST(same == 0 ? 0 : -1);
  check_ready();
  CHECK_EQ("kcmp of the memory", 0, syscall(SYS_kcmp, getpid(), other, 1, 0, 0));
  if (vforks) CHECK("kcmp of the memory of another", syscall(SYS_kcmp, getpid(), standing, 1, 0, 0) > 0);
  atomic_store(&shared.number, 2);
  for (int i = 0; i < 5000 && atomic_load(&shared.seen) != 2; i++) check_sleep_ms(1);
  CHECK_EQ("the child has seen and answered", 2, atomic_load(&shared.seen));
  CHECK_EQ("pid of the child", other, shared.pid);
  if (atomic_load(&shared.seen) == 2) CHECK_STRING("the child's mapping", "written by the child", (char *)shared.mapped);
  if (vforks) {
    tree_collect("vforker");
    tree_wait(standing, W_EXITCODE(0, 0));
  }
  tree_wait(other, W_EXITCODE(14, 0));
  return check_finish();
}
