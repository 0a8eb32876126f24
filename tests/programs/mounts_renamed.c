/*
 * Mounts of files that lost the names by which they were mounted and have others, an open file that lost its name and
 * has another one, and one without a name on a read-only mount; in a file system of the program's own and in one of the
 * outside. Run in a mount namespace of its own.
 */
#include "removed.h"

static char outside[4200], inside[64];
static const char *in(const char *directory, const char *name) {
  static char paths[4][4300];
  static int next;
  char *path = paths[next++ & 3];
  snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
  return path;
}

/* One that was renamed to another directory, and one with a second name whose first another file has now. */
static int prepare(const char *directory, const char *first, const char *second) {
  MUST(mkdir(directory, 0700));
  MUST(mkdir(in(directory, "other"), 0700));
  put(in(directory, "renamed"), "renamed");
  put(in(directory, "linked"), "linked");
  bind(in(directory, "renamed"), first);
  bind(in(directory, "linked"), second);
  MUST(rename(in(directory, "renamed"), in(directory, "other/name")));
  MUST(link(in(directory, "linked"), in(directory, "twin")));
  MUST(unlink(in(directory, "linked")));
  put(in(directory, "linked"), "newcomer");
  put(in(directory, "open"), "open");
  int fd = (int)MUST(open(in(directory, "open"), O_RDWR | O_CLOEXEC));
  MUST(link(in(directory, "open"), in(directory, "other/open")));
  MUST(unlink(in(directory, "open")));
  MUST(mkdir(in(directory, "fixed"), 0700));
  put(in(directory, "fixed/gone"), "gone");
  bind(in(directory, "fixed"), in(directory, "fixed"));
  int gone = (int)MUST(open(in(directory, "fixed/gone"), O_RDONLY | O_CLOEXEC));
  MUST(unlink(in(directory, "fixed/gone")));
  MUST(mount(NULL, in(directory, "fixed"), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
  CHECK_EQ("the next descriptor", fd + 1, gone);
  return fd;
}

static void check(const char *directory, const char *first, const char *second, int fd) {
  check_file(first, "renamed");
  check_file(second, "linked");
  check_file(in(directory, "linked"), "newcomer");
  CHECK_EQ("what %s shows", status_of(in(directory, "other/name")).st_ino, status_of(first).st_ino, first);
  CHECK_EQ("what %s shows", status_of(in(directory, "twin")).st_ino, status_of(second).st_ino, second);
  CHECK_EQ("names of %s", 1, (long)status_of(second).st_nlink, second);
  put(second, "LINK");
  check_file(in(directory, "twin"), "LINKed");
  MUST(pwrite(fd, "OPEN", 4, 0));
  check_file(in(directory, "other/open"), "OPEN");
  char text[8] = "", link[4400] = "", at[32];
  CHECK_EQ("bytes of what is gone", 4, pread(fd + 1, text, sizeof(text) - 1, 0));
  CHECK_STRING("what is gone", "gone", text);
  snprintf(at, sizeof(at), "/proc/self/fd/%d", fd + 1);
  MUST(readlink(at, link, sizeof(link) - 1));
  CHECK("it had a path", strcmp(link + strlen(link) - strlen("/fixed/gone (deleted)"), "/fixed/gone (deleted)") == 0);
  CHECK("its mount is read-only", open(in(directory, "fixed/x"), O_WRONLY | O_CREAT, 0600) < 0 && errno == EROFS);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("own", "/mnt", "tmpfs", 0, NULL));
  for (const char *name = "abcd"; *name; name++) {
    char point[8] = "/mnt/";
    point[5] = *name;
    put(point, "");
  }
  snprintf(outside, sizeof(outside), "%s/outside", argv[1]);
  snprintf(inside, sizeof(inside), "/mnt/files");
  int one = prepare(inside, "/mnt/a", "/mnt/b");
  int two = prepare(outside, "/mnt/c", "/mnt/d");
  check_ready();
  check(inside, "/mnt/a", "/mnt/b", one);
  check(outside, "/mnt/c", "/mnt/d", two);
  return check_finish();
}
