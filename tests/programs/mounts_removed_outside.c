/*
 * Mounts of files and directories of the outside that were removed there, bound once and twice, private and shared. Run
 * in a mount namespace of its own.
 */
#include "removed.h"

static const char *name_in(const char *directory, const char *name) {
  static char path[4096];
  snprintf(path, sizeof(path), "%s/%s", directory, name);
  return path;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const struct timespec times[2] = { { 3000, 0 }, { 3000, 0 } };
  const char *work = argv[1];
  char outside[4000];
  snprintf(outside, sizeof(outside), "%s/outside", work);
  MUST(mkdir(outside, 0755));
  MUST(mount("points", "/mnt", "tmpfs", 0, NULL));
  for (const char *name = "abcdefg"; *name; name++) {
    char path[16];
    snprintf(path, sizeof(path), "/mnt/%c", *name);
    if (*name == 'c' || *name == 'd') MUST(mkdir(path, 0755));
    else put(path, "");
  }
  put(name_in(outside, "file"), "of the outside");
  mark(name_in(outside, "file"), 0640);
  bind(name_in(outside, "file"), "/mnt/a");
  bind(name_in(outside, "file"), "/mnt/b");
  MUST(unlink(name_in(outside, "file")));
  MUST(mkdir(name_in(outside, "directory"), 0700));
  mark(name_in(outside, "directory"), 0711);
  bind(name_in(outside, "directory"), "/mnt/c");
  bind(name_in(outside, "directory"), "/mnt/d");
  MUST(rmdir(name_in(outside, "directory")));
  /* as an editor does it */
  put(name_in(outside, "replaced"), "old");
  bind(name_in(outside, "replaced"), "/mnt/e");
  put(name_in(outside, "new"), "new");
  char from[4096];
  snprintf(from, sizeof(from), "%s/new", outside);
  MUST(rename(from, name_in(outside, "replaced")));
  put(name_in(outside, "peers"), "of peers");
  bind(name_in(outside, "peers"), "/mnt/f");
  MUST(mount(NULL, "/mnt/f", NULL, MS_SHARED, NULL));
  bind("/mnt/f", "/mnt/g");
  MUST(mount(NULL, "/mnt/g", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
  MUST(unlink(name_in(outside, "peers")));
  MUST(utimensat(AT_FDCWD, outside, times, 0));
  int open_one = (int)MUST(open("/mnt/a", O_RDWR | O_CLOEXEC));

  check_ready();

  check_marks("/mnt/a", S_IFREG | 0640);
  check_file("/mnt/a", "of the outside");
  MUST(pwrite(open_one, "O", 1, 0));
  check_file("/mnt/b", "Of the outside");
  CHECK_EQ("both files are the same", status_of("/mnt/a").st_ino, status_of("/mnt/b").st_ino);
  check_marks("/mnt/c", S_IFDIR | 0711);
  CHECK_EQ("both directories are the same", status_of("/mnt/c").st_ino, status_of("/mnt/d").st_ino);
  CHECK_EQ("it is of the outside", status_of(outside).st_dev, status_of("/mnt/c").st_dev);
  CHECK("nothing can be made in it", open("/mnt/c/x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT);
  check_file("/mnt/e", "old");
  check_file(name_in(outside, "replaced"), "new");
  check_file("/mnt/f", "of peers");
  check_file("/mnt/g", "of peers");
  CHECK("one of them is read-only", open("/mnt/g", O_WRONLY) < 0 && errno == EROFS);
  CHECK("no name is there again", access(name_in(outside, "file"), F_OK) != 0);
  CHECK_EQ("time of the directory in which they were", 3000, (long)status_of(outside).st_mtim.tv_sec);
  return check_finish();
}
