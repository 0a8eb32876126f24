/* Character devices that have no state: /dev/null, zero, full, random, urandom; standard streams as they were given. */
#include "check.h"
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const struct {
  const char *path;
  int flags;
} devices[] = {{"/dev/null", O_RDWR},   {"/dev/null", O_WRONLY | O_APPEND}, {"/dev/zero", O_RDONLY | O_CLOEXEC}, {"/dev/full", O_RDWR | O_NONBLOCK},
               {"/dev/random", O_RDONLY}, {"/dev/urandom", O_RDONLY}, {"/dev/null", O_PATH}};
enum { DEVICES = sizeof(devices) / sizeof(devices[0]) };

int main(int argc, char **argv) {
  check_start(argc, argv);
  int fds[DEVICES], flags[DEVICES];
  struct stat before[DEVICES + 3], after;
  for (int i = 0; i < DEVICES; i++) {
    fds[i] = (int)MUST(dup2((int)MUST(open(devices[i].path, devices[i].flags)), 100 + 10 * i));
    flags[i] = fcntl(fds[i], F_GETFL);
    MUST(fstat(fds[i], &before[i]));
  }
  for (int i = 0; i < 3; i++) MUST(fstat(i, &before[DEVICES + i]));

  check_ready();

  for (int i = 0; i < DEVICES; i++) {
    CHECK_EQ("fstat of %s", 0, fstat(fds[i], &after), devices[i].path);
    CHECK_EQ("device number of %s", (long)before[i].st_rdev, (long)after.st_rdev, devices[i].path);
    CHECK_EQ("flags of %s", flags[i], fcntl(fds[i], F_GETFL), devices[i].path);
  }
  for (int i = 0; i < 3; i++) {
    CHECK_EQ("fstat of standard stream %d", 0, fstat(i, &after), i);
    CHECK_EQ("inode of standard stream %d", (long)before[DEVICES + i].st_ino, (long)after.st_ino, i);
  }
  char byte = 1, bytes[16] = {0};
  CHECK_EQ("reading /dev/null", 0, read(fds[0], &byte, 1));
  CHECK_EQ("writing /dev/null", 1, write(fds[1], &byte, 1));
  CHECK_EQ("reading /dev/zero", 1, read(fds[2], &byte, 1));
  CHECK_EQ("what /dev/zero gives", 0, byte);
  CHECK_EQ("writing /dev/full", -1, write(fds[3], &byte, 1));
  CHECK_EQ("error of /dev/full", ENOSPC, errno);
  CHECK_EQ("reading /dev/urandom", 16, read(fds[5], bytes, 16));
  CHECK_EQ("end of standard input", 0, read(0, &byte, 1));
  return check_finish();
}
