/*
 * Mounts of files and directories that were removed: only the mounts know them. Run in a mount namespace of its own.
 */
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

static void check_file(const char *path, const char *wanted) {
  char text[64] = "";
  int fd = open(path, O_RDONLY);
  if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0) text[0] = 0;
  close(fd);
  CHECK_STRING("%s", wanted, text, path);
}

static long inode(const char *path) {
  struct stat status = { 0 };
  MUST(stat(path, &status));
  return (long)status.st_ino;
}

static void check_mode(const char *path, long mode, long names) {
  struct stat status = { 0 };
  MUST(stat(path, &status));
  CHECK_EQ("mode of %s", mode, (long)status.st_mode, path);
  CHECK_EQ("owner of %s", 7, (long)status.st_uid, path);
  CHECK_EQ("time of %s", 1000, (long)status.st_mtim.tv_sec, path);
  if (names >= 0) CHECK_EQ("names of %s", names, (long)status.st_nlink, path);
  char value[8] = "";
  CHECK_EQ("attribute of %s", 5, (long)getxattr(path, "trusted.name", value, sizeof(value)), path);
}

static void mark(const char *path, mode_t mode) {
  const struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
  MUST(chown(path, 7, 8));
  MUST(chmod(path, mode));
  MUST(setxattr(path, "trusted.name", "value", 5, 0));
  MUST(utimensat(AT_FDCWD, path, times, 0));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("one", "/mnt", "tmpfs", 0, NULL));
  for (const char *name = "abcdef"; *name; name++) {
    char path[16];
    snprintf(path, sizeof(path), "/mnt/%c", *name);
    if (*name == 'c' || *name == 'f') MUST(mkdir(path, 0755));
    else put(path, "");
  }
  MUST(mkdir("/mnt/source", 0755));
  put("/mnt/source/file", "of one that is gone");
  mark("/mnt/source/file", 0640);
  MUST(mkdir("/mnt/source/directory", 0700));
  mark("/mnt/source/directory", 0711);
  bind("/mnt/source/file", "/mnt/a");
  bind("/mnt/source/file", "/mnt/b");
  bind("/mnt/source/directory", "/mnt/c");
  MUST(unlink("/mnt/source/file"));
  MUST(rmdir("/mnt/source/directory"));
  MUST(rmdir("/mnt/source"));

  put("/mnt/name", "old");
  bind("/mnt/name", "/mnt/d");
  MUST(unlink("/mnt/name"));
  put("/mnt/name", "new");

  /* both had one name, and there is no other mount of their file system */
  MUST(mount("two", "/mnt/f", "tmpfs", 0, NULL));
  put("/mnt/f/removed", "alone");
  mark("/mnt/f/removed", 0604);
  bind("/mnt/f/removed", "/mnt/e");
  MUST(unlink("/mnt/f/removed"));
  MUST(mkdir("/mnt/f/removed", 0700));
  mark("/mnt/f/removed", 0701);
  MUST(mkdir("/mnt/g", 0700));
  bind("/mnt/f/removed", "/mnt/g");
  MUST(rmdir("/mnt/f/removed"));
  MUST(umount("/mnt/f"));
  MUST(rmdir("/mnt/f"));
  const struct timespec times[2] = { { 2000, 0 }, { 2000, 0 } };
  MUST(utimensat(AT_FDCWD, "/mnt", times, 0));
  int open_one = (int)MUST(open("/mnt/a", O_RDWR | O_CLOEXEC));

  check_ready();

  check_mode("/mnt/a", S_IFREG | 0640, 0);
  check_file("/mnt/a", "of one that is gone");
  MUST(pwrite(open_one, "O", 1, 0));
  check_file("/mnt/b", "Of one that is gone");
  CHECK_EQ("both are the same", inode("/mnt/a"), inode("/mnt/b"));
  check_mode("/mnt/c", S_IFDIR | 0711, 0);
  CHECK("nothing can be made in it", open("/mnt/c/x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK("its directory is gone", access("/mnt/source", F_OK) != 0);
  check_file("/mnt/d", "old");
  check_file("/mnt/name", "new");
  CHECK("they are two", inode("/mnt/d") != inode("/mnt/name"));
  check_file("/mnt/e", "alone");
  check_mode("/mnt/e", S_IFREG | 0604, 0);
  check_mode("/mnt/g", S_IFDIR | 0701, 0);
  struct stat status;
  MUST(stat("/mnt", &status));
  CHECK_EQ("time of the directory in which they were", 2000, (long)status.st_mtim.tv_sec);
  return check_finish();
}
