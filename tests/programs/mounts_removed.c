/*
 * Mounts of files and directories that were removed: only the mounts know them. Run in a mount namespace of its own.
 */
#include "removed.h"

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

  check_marks("/mnt/a", S_IFREG | 0640);
  check_file("/mnt/a", "of one that is gone");
  MUST(pwrite(open_one, "O", 1, 0));
  check_file("/mnt/b", "Of one that is gone");
  CHECK_EQ("both are the same", status_of("/mnt/a").st_ino, status_of("/mnt/b").st_ino);
  check_marks("/mnt/c", S_IFDIR | 0711);
  CHECK("nothing can be made in it", open("/mnt/c/x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  CHECK("its directory is gone", access("/mnt/source", F_OK) != 0);
  check_file("/mnt/d", "old");
  check_file("/mnt/name", "new");
  CHECK("they are two", status_of("/mnt/d").st_ino != status_of("/mnt/name").st_ino);
  check_file("/mnt/e", "alone");
  check_marks("/mnt/e", S_IFREG | 0604);
  check_marks("/mnt/g", S_IFDIR | 0701);
  CHECK_EQ("time of the directory in which they were", 2000, (long)status_of("/mnt").st_mtim.tv_sec);
  return check_finish();
}
