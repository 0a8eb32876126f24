/*
 * Locks across fork: parent and child lock by one open file description, another child shares the whole table, and
 * others wait for locks in each of the ways there are. Those get them, without EINTR, when they are given up.
 */
#include "check.h"
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

static char path[4400];
static int file(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  return (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
}
static int lock(int fd, int command, int type, long start, long length) {
  struct flock range = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return fcntl(fd, command, &range);
}
static int ready[2];
__attribute__((noreturn)) static void hold(void) {
  if (write(ready[1], "x", 1) != 1) _exit(1);
  for (;;) pause();
}
static void until_ready(void) {
  char byte;
  if (read(ready[0], &byte, 1) != 1) check_die("a child has ended");
}

enum { RECORD, OPEN_FILE, WHOLE, WAITERS };
static const char *const NAMES[WAITERS] = {"a record lock", "a lock of an open file", "a flock"};
static int held[WAITERS];

/** Waits for a lock by an open file of its own; ends with what the call gave. */
static pid_t wait_for(int kind) {
  pid_t pid = (pid_t)MUST(fork());
  if (pid == 0) {
    int fd = file("waited for");
    if (write(ready[1], "x", 1) != 1) _exit(255);
    int got = kind == WHOLE ? flock(fd, LOCK_EX) : lock(fd, kind == RECORD ? F_SETLKW : F_OFD_SETLKW, F_WRLCK, 10 * kind, 10);
    _exit(got == 0 ? 0 : errno);
  }
  until_ready();
  char name[64];
  snprintf(name, sizeof(name), "/proc/%d/status", pid);
  for (int i = 0; strncmp(check_proc(name, "State:"), "State:\tS", 8) != 0; i++) {
    if (i == 5000) check_die("a child does not wait");
    check_sleep_ms(1);
  }
  return pid;
}

static int shares_files(void *arg) {
  int fd = *(int *)arg;
  if (lock(fd, F_SETLK, F_WRLCK, 200, 10) != 0) _exit(1);
  hold();
}

static char stack[1 << 16] __attribute__((aligned(16)));

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(pipe2(ready, O_CLOEXEC));
  int shared = file("shared");
  MUST(lock(shared, F_SETLK, F_WRLCK, 0, 10));
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) {
    if (lock(shared, F_SETLK, F_RDLCK, 50, 10) != 0 || flock(shared, LOCK_EX) != 0) _exit(1);
    hold();
  }
  until_ready();
  pid_t mate = (pid_t)MUST(clone(shares_files, stack + sizeof(stack), CLONE_FILES | SIGCHLD, &shared));
  until_ready();

  held[RECORD] = held[WHOLE] = file("waited for");
  held[OPEN_FILE] = file("waited for");
  MUST(lock(held[RECORD], F_SETLK, F_WRLCK, 10 * RECORD, 10));
  MUST(lock(held[OPEN_FILE], F_OFD_SETLK, F_WRLCK, 10 * OPEN_FILE, 10));
  MUST(flock(held[WHOLE], LOCK_EX));
  pid_t waiters[WAITERS];
  for (int i = 0; i < WAITERS; i++) waiters[i] = wait_for(i);

  check_ready();
  int status;
  for (int i = 0; i < WAITERS; i++) CHECK_EQ("who waits for %s ended early", 0, waitpid(waiters[i], &status, WNOHANG), NAMES[i]);
  CHECK_EQ("giving up the record lock", 0, lock(held[RECORD], F_SETLK, F_UNLCK, 10 * RECORD, 10));
  CHECK_EQ("giving up the lock of the open file", 0, lock(held[OPEN_FILE], F_OFD_SETLK, F_UNLCK, 10 * OPEN_FILE, 10));
  CHECK_EQ("giving up the flock", 0, flock(held[WHOLE], LOCK_UN));
  for (int i = 0; i < WAITERS; i++) {
    MUST(waitpid(waiters[i], &status, 0));
    CHECK_EQ("who waited for %s", 0, status, NAMES[i]);
  }
  /* the lock of the child is none of ours, though the open file is the same */
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 50, .l_len = 10};
  MUST(fcntl(shared, F_GETLK, &range));
  CHECK_EQ("the owner of the child's lock", child, range.l_pid);
  CHECK_EQ("the child's lock", F_RDLCK, range.l_type);
  /* that of who shares the table is ours, too */
  range = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 200, .l_len = 10};
  MUST(fcntl(shared, F_GETLK, &range));
  CHECK_EQ("a lock of the shared table", F_UNLCK, range.l_type);
  CHECK_EQ("the flock of the shared open file", 0, flock(shared, LOCK_EX | LOCK_NB));
  int other = file("shared");
  CHECK_EQ("the flock of another", -1, flock(other, LOCK_SH | LOCK_NB));
  for (int i = 0; i < 2; i++) {
    kill(i == 0 ? child : mate, SIGKILL);
    MUST(waitpid(i == 0 ? child : mate, &status, 0));
    CHECK_EQ("how a child ends", SIGKILL, status);
  }
  return check_finish();
}
