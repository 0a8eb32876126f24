/*
 * Terminals and the processes that have them: a child that was there before its session got the terminal, /dev/tty in
 * the hands of another session, a group in the foreground that is gone, a slave whose master is closed, permissions.
 *
 * Argument: the ptmx to open.
 */
#include "check.h"
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *ptmx;

static int master(void) {
  int fd = (int)MUST(open(ptmx, O_RDWR | O_NOCTTY | O_NONBLOCK));
  MUST(ioctl(fd, TIOCSPTLCK, &(int){0}));
  return fd;
}
static void slave_path(int fd, char path[64]) {
  int number;
  MUST(ioctl(fd, TIOCGPTN, &number));
  if (strcmp(ptmx, "/dev/ptmx") == 0) snprintf(path, 64, "/dev/pts/%d", number);
  else snprintf(path, 64, "%.*s%d", (int)(strrchr(ptmx, '/') + 1 - ptmx), ptmx, number);
}
static int slave(int fd, int flags) {
  char path[64];
  slave_path(fd, path);
  return (int)MUST(open(path, flags | O_NOCTTY));
}

/** What the processes of the session tell. */
static struct shared {
  atomic_int leader_ready, orphan_ready, child_ready, go;
  int child_has, orphan_wrote, leader_has;
  pid_t gone;
} *shared;

static int has_terminal(void) {
  int fd = open("/dev/tty", O_RDWR | O_NOCTTY);
  if (fd >= 0) close(fd);
  return fd >= 0;
}
static void await_go(void) {
  while (!shared->go) check_sleep_ms(2);
}

__attribute__((noreturn)) static void lead(int fd) {
  MUST(setsid());
  if (MUST(fork()) == 0) {
    shared->child_ready = 1;
    await_go();
    shared->child_has = has_terminal();
    _exit(0);
  }
  while (!shared->child_ready) check_sleep_ms(1);
  MUST(ioctl(fd, TIOCSCTTY, 0));
  int own = (int)MUST(open("/dev/tty", O_RDWR | O_NOCTTY));
  if (MUST(fork()) == 0) {
    /* its session has no terminal, but it has this one open by its other name */
    MUST(setsid());
    shared->orphan_ready = 1;
    await_go();
    shared->orphan_wrote = (int)write(own, "from afar", 9);
    _exit(0);
  }
  close(own);
  pid_t group = (pid_t)MUST(fork());
  if (group == 0) {
    setpgid(0, 0);
    for (;;) pause();
  }
  MUST(setpgid(group, group));
  signal(SIGTTOU, SIG_IGN);
  MUST(ioctl(fd, TIOCSPGRP, &group));
  kill(group, SIGKILL);
  MUST(waitpid(group, NULL, 0));
  while (!shared->orphan_ready) check_sleep_ms(1);
  shared->gone = group;
  shared->leader_ready = 1;
  await_go();
  shared->leader_has = has_terminal();
  MUST(wait(NULL)), MUST(wait(NULL));
  _exit(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  ptmx = argc > 2 ? argv[2] : "/dev/ptmx";
  shared = (struct shared *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  int dead_master = master();
  int dead = slave(dead_master, O_RDWR | O_NONBLOCK), dead_reader = slave(dead_master, O_RDONLY);
  close(dead_master);

  int fd = master();
  int own = slave(fd, O_RDWR);
  MUST(fchmod(own, 0640));
  MUST(fchown(own, 12, 34));
  pid_t leader = (pid_t)MUST(fork());
  if (leader == 0) lead(own);
  while (!shared->leader_ready) check_sleep_ms(1);

  check_ready();
  char byte;
  CHECK_EQ("a slave without a master: read", 0, read(dead, &byte, 1));
  CHECK_EQ("a slave without a master: read", 0, read(dead_reader, &byte, 1));
  CHECK_EQ("a slave without a master: write", -1, write(dead, "x", 1));
  CHECK_EQ("a slave without a master: write", EIO, errno);
  CHECK_EQ("a slave without a master: flags", O_RDWR | O_NONBLOCK, fcntl(dead, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
  struct pollfd hung = {.fd = dead, .events = POLLIN};
  CHECK_EQ("a slave without a master: poll", 1, poll(&hung, 1, 0));
  CHECK_EQ("a slave without a master: poll", POLLIN | POLLERR | POLLHUP, hung.revents);

  struct stat status;
  MUST(fstat(own, &status));
  CHECK_EQ("permissions", 0640, status.st_mode & 07777);
  CHECK_EQ("owner", 12, status.st_uid);
  CHECK_EQ("group", 34, status.st_gid);

  pid_t foreground = 0, session = 0;
  MUST(ioctl(fd, TIOCGPGRP, &foreground));
  MUST(ioctl(fd, TIOCGSID, &session));
  CHECK_EQ("the group in the foreground", shared->gone, foreground);
  CHECK_EQ("the session", leader, session);
  CHECK_EQ("that group is gone", -1, kill(-shared->gone, 0));
  shared->go = 1;
  MUST(waitpid(leader, NULL, 0));
  CHECK_EQ("the child without the terminal", 0, shared->child_has);
  CHECK_EQ("the leader has the terminal", 1, shared->leader_has);
  CHECK_EQ("another session writes to the terminal", 9, shared->orphan_wrote);
  char text[16] = "";
  for (int i = 0; i < 10000 && read(fd, text, sizeof(text) - 1) != 9; i++) check_sleep_ms(1);
  CHECK_STRING("what it wrote", "from afar", text);
  return check_finish();
}
