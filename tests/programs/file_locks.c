/*
 * Holds locks of every kind: record locks of the process (also on a file that is mapped, as SQLite's shared memory is),
 * locks of open files and flocks. A child, to whom they are foreign, tries them before and after.
 */
#include "check.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

static char path[4400];
static const char *in_dir(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  return path;
}
static int file(const char *name, int flags) {
  int fd = (int)MUST(open(in_dir(name), flags | O_CREAT, 0644));
  if ((flags & O_ACCMODE) != O_RDONLY) MUST(ftruncate(fd, 4096));
  return fd;
}
static int lock(int fd, int command, int type, long start, long length) {
  struct flock range = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return fcntl(fd, command, &range);
}

enum { BYTES = 256 };
/** What a stranger is told of each byte, and of each flock. */
struct told {
  short type[3][BYTES];
  pid_t pid[3][BYTES];
  int exclusive[2], shared[2];
};
static const char *const RANGES[3] = {"records", "opened", "mapped"};
static const char *const FLOCKS[2] = {"exclusive", "shared"};

static void ask(struct told *told) {
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) {
    for (int i = 0; i < 3; i++) {
      int fd = open(in_dir(RANGES[i]), O_RDWR);
      for (int byte = 0; byte < BYTES; byte++) {
        struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
        if (fcntl(fd, F_GETLK, &range) != 0) _exit(1);
        told->type[i][byte] = range.l_type, told->pid[i][byte] = range.l_type == F_UNLCK ? 0 : range.l_pid;
      }
    }
    for (int i = 0; i < 2; i++) {
      int fd = open(in_dir(FLOCKS[i]), O_RDWR);
      told->exclusive[i] = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
      told->shared[i] = flock(fd, LOCK_SH | LOCK_NB) == 0 ? 0 : errno;
    }
    _exit(0);
  }
  int status;
  MUST(waitpid(child, &status, 0));
  if (status != 0) check_die("the child that asks ends with %#x", status);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct told *before = (struct told *)MUST(mmap(NULL, 2 * sizeof(*before), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  struct told *after = before + 1;

  int records = file("records", O_RDWR), again = file("records", O_RDWR), reading = file("records", O_RDONLY);
  MUST(lock(records, F_SETLK, F_WRLCK, 5, 10));
  MUST(lock(records, F_SETLK, F_RDLCK, 30, 20));
  MUST(lock(again, F_SETLK, F_WRLCK, 100, 1));
  MUST(lock(reading, F_SETLK, F_RDLCK, 120, 0));
  MUST(dup2(records, 60));

  int opened = file("opened", O_RDWR), other = file("opened", O_RDWR | O_CLOEXEC);
  MUST(lock(opened, F_OFD_SETLK, F_WRLCK, 0, 7));
  MUST(lock(opened, F_OFD_SETLK, F_RDLCK, 10, 5));
  MUST(lock(other, F_OFD_SETLK, F_RDLCK, 12, 0));

  int mapped = file("mapped", O_RDWR);
  char *map = (char *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0));
  strcpy(map, "mapped");
  MUST(lock(mapped, F_SETLK, F_RDLCK, 123, 2));
  MUST(lock(mapped, F_SETLK, F_WRLCK, 127, 1));

  int exclusive = file("exclusive", O_RDONLY), shared = file("shared", O_RDWR);
  MUST(flock(exclusive, LOCK_EX));
  MUST(flock(shared, LOCK_SH));

  ask(before);
  if (before->type[0][5] != F_WRLCK || before->type[2][127] != F_WRLCK || before->exclusive[1] == 0) check_die("nothing is locked");
  check_ready();
  ask(after);
  for (int i = 0; i < 3; i++) {
    CHECK_BYTES("locks of %s", before->type[i], after->type[i], sizeof(before->type[i]), RANGES[i]);
    CHECK_BYTES("owners of %s", before->pid[i], after->pid[i], sizeof(before->pid[i]), RANGES[i]);
  }
  for (int i = 0; i < 2; i++) {
    CHECK_EQ("%s: an exclusive flock", before->exclusive[i], after->exclusive[i], FLOCKS[i]);
    CHECK_EQ("%s: a shared flock", before->shared[i], after->shared[i], FLOCKS[i]);
  }
  CHECK_STRING("the mapping", "mapped", map);
  return check_finish();
}
