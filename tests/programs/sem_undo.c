/*
 * System V semaphores of the host that processes hold with SEM_UNDO, so that they are given back when these end: one
 * by a process alone, others by two that share what is to be undone (CLONE_SYSVSEM). The id of the set is in the file
 * "set" of the work directory.
 */
#include "tree.h"
#include <sys/ipc.h>
#include <sys/sem.h>

#define SEMAPHORES 3

static int set;

static void change(int semaphore, int by) {
  struct sembuf operation = {.sem_num = (unsigned short)semaphore, .sem_op = (short)by, .sem_flg = SEM_UNDO | IPC_NOWAIT};
  MUST(semop(set, &operation, 1));
}

static void values(const char *when, int first, int second, int third) {
  unsigned short now[SEMAPHORES];
  CHECK_EQ("%s: values", 0, semctl(set, 0, GETALL, now), when);
  CHECK_EQ("%s: first semaphore", first, now[0], when);
  CHECK_EQ("%s: second semaphore", second, now[1], when);
  CHECK_EQ("%s: third semaphore", third, now[2], when);
}

static int sharer(void *unused) {
  (void)unused;
  tree_become("sharer");
  change(0, -1);
  tree_settled();
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  set = (int)MUST(semget(IPC_PRIVATE, SEMAPHORES, 0600));
  unsigned short start[SEMAPHORES] = {5, 0, 20000};
  MUST(semctl(set, 0, SETALL, start));
  char name[16];
  check_write_file("set", name, (size_t)snprintf(name, sizeof(name), "%d\n", set));
  pid_t holder = tree_fork("holder");
  if (holder == 0) {
    change(0, -2);
    change(1, 3);
    pid_t other = tree_clone(sharer, CLONE_SYSVSEM | SIGCHLD, NULL);
    tree_await("sharer");
    tree_settled();
    tree_wait(other, 0);
    CHECK_EQ("first semaphore when one that shares it has ended", 2, semctl(set, 0, GETVAL));
    tree_report(0);
  }
  pid_t alone = tree_fork("alone");
  if (alone == 0) {
    change(2, -20000);
    tree_settled();
    tree_report(0);
  }
  tree_await("holder");
  tree_await("alone");
  values("before", 2, 3, 0);
  check_ready();
  tree_collect("sharer");
  tree_collect("holder");
  tree_wait(holder, 0);
  tree_collect("alone");
  tree_wait(alone, 0);
  values("when those have ended who held them", 5, 0, 20000);
  MUST(semctl(set, 0, IPC_RMID));
  return check_finish();
}
