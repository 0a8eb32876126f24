/*
 * One System V segment, attached twice: parts of it with other protections, apart though they are alike, unmapped, and
 * moved; bytes behind its size; another owner and creator. Argument: "doomed": it goes with its last user.
 */
#include "check.h"
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define PAGE 4096
#define PAGES 21
#define SIZE (20 * PAGE + 100)

static int id;
static struct shmid_ds state;

static void compare(const char *when, unsigned long gone) {
  struct shmid_ds now;
  CHECK_EQ("%s: shmctl", 0, shmctl(id, IPC_STAT, &now), when);
  CHECK_EQ("%s: key", state.shm_perm.__key, now.shm_perm.__key, when);
  CHECK_EQ("%s: mode", state.shm_perm.mode, now.shm_perm.mode, when);
  CHECK_EQ("%s: owner", state.shm_perm.uid, now.shm_perm.uid, when);
  CHECK_EQ("%s: group", state.shm_perm.gid, now.shm_perm.gid, when);
  CHECK_EQ("%s: creator", state.shm_perm.cuid, now.shm_perm.cuid, when);
  CHECK_EQ("%s: group of the creator", state.shm_perm.cgid, now.shm_perm.cgid, when);
  CHECK_EQ("%s: size", state.shm_segsz, now.shm_segsz, when);
  CHECK_EQ("%s: attached", state.shm_nattch - gone, now.shm_nattch, when);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int doomed = argc > 2;
  MUST(setresgid(-1, 6, -1));
  MUST(setresuid(-1, 5, -1));
  id = (int)MUST(shmget(0x0d000000 + getpid(), SIZE, IPC_CREAT | IPC_EXCL | 0600));
  MUST(setresuid(-1, 0, -1));
  MUST(setresgid(-1, 0, -1));
  MUST(shmctl(id, IPC_STAT, &state));
  state.shm_perm.uid = 12, state.shm_perm.gid = 13, state.shm_perm.mode = 0604;
  MUST(shmctl(id, IPC_SET, &state));
  MUST(shmctl(id, SHM_LOCK, NULL));

  char *all = (char *)MUST(shmat(id, NULL, 0));
  check_fill(all, PAGES * PAGE, 1);
  char *twice = (char *)MUST(shmat(id, NULL, SHM_RDONLY));
  MUST(munmap(twice, PAGE));
  twice += PAGE;
  MUST(mprotect(all + 3 * PAGE, 2 * PAGE, PROT_READ));
  MUST(mprotect(all + 7 * PAGE, 2 * PAGE, PROT_NONE));
  MUST(mprotect(all + 7 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE));
  MUST(munmap(all + 12 * PAGE, 2 * PAGE));
  char *stranger = (char *)MUST(mmap(all + 13 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
  check_fill(stranger, PAGE, 2);
  char *place = (char *)MUST(mmap(NULL, 9 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char *moved = place + 4 * PAGE;
  MUST(mremap(all + 15 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved));
  MUST(mprotect(all + 18 * PAGE, PAGE, PROT_READ | PROT_EXEC));
  if (doomed) MUST(shmctl(id, IPC_RMID, NULL));
  MUST(shmctl(id, IPC_STAT, &state));
  char name[64];
  check_write_file("segment", name, (size_t)snprintf(name, sizeof(name), "%d %d\n", id, 0x0d000000 + getpid()));
  check_ready();

  compare("after", 0);
  char *whole = (char *)MUST(shmat(id, NULL, SHM_RDONLY));
  check_filled("content", whole, PAGES * PAGE, 1);
  MUST(shmdt(whole));
  check_filled("memory in the hole", stranger, PAGE, 2);
  CHECK_BYTES("content at the second place", all + 18 * PAGE, twice + 17 * PAGE, PAGE);
  CHECK_EQ("a read-only attachment can be made writable", -1, mprotect(twice, PAGE, PROT_READ | PROT_WRITE));
  CHECK_EQ("why it cannot", EACCES, errno);
  char byte = moved[7];
  moved[7] ^= 1;
  CHECK_EQ("byte written at the moved part", moved[7], twice[14 * PAGE + 7]);
  moved[7] = byte;
  /* 0-2, 3-4, 5-6, 7-8, 9-11, 14, 17, 18, 19-20 at `all`; two at `moved` is one; 1-20 at `twice` is one */
  CHECK_EQ("areas", 11, state.shm_nattch);
  CHECK_EQ("shmdt", 0, shmdt(all));
  compare("without the first", 9);
  check_filled("memory in the hole after shmdt", stranger, PAGE, 2);
  CHECK_BYTES("the moved part after shmdt", twice + 14 * PAGE, moved, 2 * PAGE);
  CHECK_EQ("shmdt of the moved part", 0, shmdt(moved - 15 * PAGE));
  CHECK_EQ("shmdt of the second place", 0, shmdt(twice - PAGE));
  CHECK_EQ("the segment is there without users", doomed ? -1 : 0, shmctl(id, IPC_STAT, &state));
  return check_finish();
}
