/*
 * Mounts of files that lost the names by which they were mounted and have others, in a file system of the program's own
 * and in one of the outside. Run in a mount namespace of its own.
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
static void prepare(const char *directory, const char *first, const char *second) {
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
}

static void check(const char *directory, const char *first, const char *second) {
  check_file(first, "renamed");
  check_file(second, "linked");
  check_file(in(directory, "linked"), "newcomer");
  CHECK_EQ("what %s shows", status_of(in(directory, "other/name")).st_ino, status_of(first).st_ino, first);
  CHECK_EQ("what %s shows", status_of(in(directory, "twin")).st_ino, status_of(second).st_ino, second);
  CHECK_EQ("names of %s", 1, (long)status_of(second).st_nlink, second);
  put(second, "LINK");
  check_file(in(directory, "twin"), "LINKed");
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
  prepare(inside, "/mnt/a", "/mnt/b");
  prepare(outside, "/mnt/c", "/mnt/d");
  check_ready();
  check(inside, "/mnt/a", "/mnt/b");
  check(outside, "/mnt/c", "/mnt/d");
  return check_finish();
}
