/*
 * Descriptors that are opened again by a path of the kernel's: namespaces, block devices, character devices without a
 * state, files of /proc and /sys with a position in the middle of a line, names (O_PATH) of pipes, and an epoll that
 * polls busily.
 */
#include "check.h"
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#ifndef EPIOCSPARAMS
struct epoll_params {
  uint32_t busy_poll_usecs;
  uint16_t busy_poll_budget;
  uint8_t prefer_busy_poll, pad;
};
#define EPIOCSPARAMS _IOW(0x8a, 0x01, struct epoll_params)
#define EPIOCGPARAMS _IOR(0x8a, 0x02, struct epoll_params)
#endif

static const char *const spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"};
enum { SPACES = sizeof(spaces) / sizeof(spaces[0]) };
static const struct {
  const char *path;
  int flags;
} devices[] = {{"/dev/loop0", O_RDONLY}, {"/dev/zram0", O_RDONLY}, {"/dev/vda", O_RDONLY}, {"/dev/loop-control", O_RDWR},
               {"/dev/kvm", O_RDWR | O_CLOEXEC}, {"/dev/hwrng", O_RDONLY | O_NONBLOCK}, {"/dev/kmsg", O_WRONLY}, {"/dev/kmsg", O_RDONLY | O_NONBLOCK}};
enum { DEVICES = sizeof(devices) / sizeof(devices[0]) };
static const char *const files[] = {"/proc/sys/kernel/ostype", "/proc/self/mountinfo", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled",
                                    "/proc/sys/kernel", "/sys/kernel", "/proc/self/limits"};
enum { FILES = sizeof(files) / sizeof(files[0]) };

static ino_t inode_of(int fd) {
  struct stat st = {0};
  CHECK_EQ("fstat of %d", 0, fstat(fd, &st), fd);
  return st.st_ino;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[128], text[3][64] = {{0}};
  int space[SPACES], device[DEVICES], file[FILES], ends[2], names[2];
  ino_t inodes[SPACES];
  struct stat before[DEVICES], after;
  for (int i = 0; i < SPACES; i++) {
    snprintf(path, sizeof(path), "/proc/self/ns/%s", spaces[i]);
    space[i] = open(path, i % 2 ? O_RDONLY : O_RDONLY | O_CLOEXEC);
    if (space[i] >= 0) inodes[i] = inode_of(space[i]);
    else check_note("no namespace %s", spaces[i]);
  }
  for (int i = 0; i < DEVICES; i++) {
    device[i] = open(devices[i].path, devices[i].flags);
    if (device[i] >= 0) MUST(fstat(device[i], &before[i]));
    else check_note("no device %s: %s", devices[i].path, strerror(errno));
  }
  for (int i = 0; i < FILES; i++) MUST(file[i] = open(files[i], O_RDONLY));
  MUST(read(file[0], text[0], 3)), MUST(read(file[1], text[1], 7)), MUST(read(file[2], text[2], 5));
  off_t positions[FILES];
  for (int i = 0; i < FILES; i++) positions[i] = lseek(file[i], 0, SEEK_CUR);
  MUST(pipe(ends));
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[i]);
    names[i] = (int)MUST(open(path, O_PATH));
  }
  int epoll = (int)MUST(epoll_create1(0));
  struct epoll_params wanted = {50, 8, 1, 0}, params = {0};
  bool busy = ioctl(epoll, EPIOCSPARAMS, &wanted) == 0;
  if (!busy) check_note("epoll does not poll busily here: %s", strerror(errno));

  check_ready();

  for (int i = 0; i < SPACES; i++)
    if (space[i] >= 0) CHECK_EQ("namespace %s", (long)inodes[i], (long)inode_of(space[i]), spaces[i]);
  for (int i = 0; i < DEVICES; i++) {
    if (device[i] < 0) continue;
    CHECK_EQ("fstat of %s", 0, fstat(device[i], &after), devices[i].path);
    CHECK_EQ("device number of %s", (long)before[i].st_rdev, (long)after.st_rdev, devices[i].path);
    CHECK_EQ("type of %s", before[i].st_mode, after.st_mode, devices[i].path);
    CHECK_EQ("FD_CLOEXEC of %s", devices[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0, fcntl(device[i], F_GETFD), devices[i].path);
  }
  char rest[256] = {0}, fresh[256] = {0};
  for (int i = 0; i < FILES; i++) {
    CHECK_EQ("position in %s", positions[i], lseek(file[i], 0, SEEK_CUR), files[i]);
    int again = open(files[i], O_RDONLY);
    if (i >= 3) CHECK_EQ("inode of %s", i == 6 ? 0 : (long)inode_of(again), i == 6 ? 0 : (long)inode_of(file[i]), files[i]);
    else {
      ssize_t n = pread(again, fresh, 40, positions[i]);
      CHECK_EQ("bytes of %s", n, pread(file[i], rest, 40, positions[i]), files[i]);
      CHECK_BYTES("the rest of %s", fresh, rest, (size_t)(n > 0 ? n : 0), files[i]);
    }
    close(again);
  }
  for (int i = 0; i < 2; i++) {
    CHECK_EQ("the pipe of name %d", (long)inode_of(ends[0]), (long)inode_of(names[i]), i);
    CHECK_EQ("read by a name", -1, read(names[i], rest, 1));
    CHECK_EQ("its error", EBADF, errno);
  }
  CHECK_EQ("write", 1, write(ends[1], "x", 1));
  CHECK_EQ("read", 1, read(ends[0], rest, 1));
  if (busy) {
    CHECK_EQ("parameters of the epoll", 0, ioctl(epoll, EPIOCGPARAMS, &params));
    CHECK_BYTES("busy polling", &wanted, &params, sizeof(params));
  }
  return check_finish();
}
