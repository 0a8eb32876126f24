/*
 * System V shared memory attached by several processes: one with a key and a size that is no multiple of a page, one
 * that is to be destroyed with its last user, one attached twice, read only, and by a child alone.
 */
#include "tree.h"
#include <sys/ipc.h>
#include <sys/shm.h>

#define SIZE (20 * 4096 + 123)

struct segment {
  int id;
  char *at;
  struct shmid_ds state;
};
static struct segment keyed, doomed;
static char *twice;

static void compare(const char *name, struct segment *segment) {
  struct shmid_ds now;
  CHECK_EQ("%s: shmctl", 0, shmctl(segment->id, IPC_STAT, &now), name);
  CHECK_EQ("%s: key", segment->state.shm_perm.__key, now.shm_perm.__key, name);
  CHECK_EQ("%s: mode", segment->state.shm_perm.mode, now.shm_perm.mode, name);
  CHECK_EQ("%s: owner", segment->state.shm_perm.uid, now.shm_perm.uid, name);
  CHECK_EQ("%s: group", segment->state.shm_perm.gid, now.shm_perm.gid, name);
  CHECK_EQ("%s: size", segment->state.shm_segsz, now.shm_segsz, name);
  CHECK_EQ("%s: attached", segment->state.shm_nattch, now.shm_nattch, name);
}
static void expect_byte(const char *what, volatile char *byte, char value) {
  for (int i = 0; i < 5000 && *byte != value; i++) check_sleep_ms(1);
  CHECK_EQ(what, value, *byte);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* a key that no other run has */
  keyed.id = (int)MUST(shmget(0x0c000000 + getpid(), SIZE, IPC_CREAT | IPC_EXCL | 0640));
  keyed.at = (char *)MUST(shmat(keyed.id, NULL, 0));
  check_fill(keyed.at, SIZE, 1);
  twice = (char *)MUST(shmat(keyed.id, NULL, SHM_RDONLY));
  doomed.id = (int)MUST(shmget(IPC_PRIVATE, SIZE, 0600));
  doomed.at = (char *)MUST(shmat(doomed.id, NULL, 0));
  check_fill(doomed.at, SIZE, 2);
  pid_t child = tree_fork("child");
  if (child == 0) {
    struct segment own = {.id = (int)MUST(shmget(IPC_PRIVATE, SIZE, 0600))};
    own.at = (char *)MUST(shmat(own.id, NULL, 0));
    check_fill(own.at, SIZE, 3);
    MUST(shmctl(own.id, IPC_RMID, NULL));
    MUST(shmdt(twice));
    MUST(shmctl(own.id, IPC_STAT, &own.state));
    tree_settled();
    compare("segment of the child", &own);
    check_filled("segment of the child", own.at, SIZE, 3);
    char *whole = malloc(SIZE);
    check_fill(whole, SIZE, 1);
    CHECK_BYTES("segment with a key", whole + 16, keyed.at + 16, SIZE - 16);
    check_fill(whole, SIZE, 2);
    CHECK_BYTES("segment without", whole + 16, doomed.at + 16, SIZE - 16);
    expect_byte("byte of the root", keyed.at + 2, 11);
    keyed.at[3] = 12;
    expect_byte("byte of the root", doomed.at + 2, 13);
    doomed.at[3] = 14;
    tree_report(0);
  }
  tree_await("child");
  MUST(shmctl(doomed.id, IPC_RMID, NULL));
  MUST(shmctl(keyed.id, IPC_STAT, &keyed.state));
  MUST(shmctl(doomed.id, IPC_STAT, &doomed.state));
  check_ready();
  compare("segment with a key", &keyed), compare("segment without", &doomed);
  CHECK_EQ("id by the key", keyed.id, shmget(0x0c000000 + getpid(), 0, 0));
  CHECK_BYTES("segment at both places", keyed.at, twice, SIZE);
  keyed.at[2] = 11, doomed.at[2] = 13;
  CHECK_EQ("byte seen at the other place", 11, twice[2]);
  expect_byte("byte of the child", twice + 3, 12);
  expect_byte("byte of the child", doomed.at + 3, 14);
  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("shmdt", 0, shmdt(doomed.at));
  CHECK_EQ("the doomed segment is gone with its last user", -1, shmctl(doomed.id, IPC_STAT, &doomed.state));
  /* the other one belongs to the host: the test takes it away */
  return check_finish();
}
