/* What programs make that have mounts of what was removed, and how they look at it. */
#pragma once
#include "check.h"
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void put(const char *path, const char *text) {
  int fd = (int)MUST(open(path, O_WRONLY | O_CREAT, 0600));
  MUST(write(fd, text, strlen(text)));
  MUST(close(fd));
}

static void bind(const char *from, const char *to) {
  MUST(mount(from, to, NULL, MS_BIND, NULL));
}

static inline void mark(const char *path, mode_t mode) {
  const struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
  MUST(chown(path, 7, 8));
  MUST(chmod(path, mode));
  MUST(setxattr(path, "trusted.name", "value", 5, 0));
  MUST(utimensat(AT_FDCWD, path, times, 0));
}

static struct stat status_of(const char *path) {
  struct stat status = { 0 };
  MUST(stat(path, &status));
  return status;
}

static void check_file(const char *path, const char *wanted) {
  char text[64] = "";
  int fd = open(path, O_RDONLY);
  if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0) text[0] = 0;
  close(fd);
  CHECK_STRING("%s", wanted, text, path);
}

/* What was marked, and has no name any more. */
static inline void check_marks(const char *path, long mode) {
  struct stat status = status_of(path);
  char value[8] = "";
  CHECK_EQ("mode of %s", mode, (long)status.st_mode, path);
  CHECK_EQ("owner of %s", 7, (long)status.st_uid, path);
  CHECK_EQ("time of %s", 1000, (long)status.st_mtim.tv_sec, path);
  CHECK_EQ("names of %s", 0, (long)status.st_nlink, path);
  CHECK_EQ("attribute of %s", 5, (long)getxattr(path, "trusted.name", value, sizeof(value)), path);
}
