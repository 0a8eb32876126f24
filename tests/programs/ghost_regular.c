/*
 * Deleted regular files: open in several ways, mapped shared and private, shared with a child, mapped and not open,
 * with holes, owner, mode, times, extended attributes and an ACL, more than 4 GiB long, without a name from the start,
 * with two names that are both gone. argv[2]: the directory they are in, the work directory unless given.
 */
#include "tree.h"
#include <sys/stat.h>
#include <sys/xattr.h>

#define PAGE 4096
#define CONTENT (5 * PAGE + 100)
#define FAR (3L << 20)
#define VERY_FAR ((5L << 30) + 12345)
#define OWNER 12345
#define GROUP 23456

static char place[4096], path[4300];

static const char *in_place(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", place, name);
  return path;
}
static int make(const char *name, int flags) { return (int)MUST(open(in_place(name), flags | O_CREAT | O_EXCL, 0600)); }

/** Version 2 of the ACL format of linux/posix_acl_xattr.h: user 4711 may read. */
static const unsigned char acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0x67, 0x12, 0, 0,
                                    4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0,
                                    255, 255, 255, 255};

struct state {
  struct stat stat;
  char xattr[16], acl[64];
  ssize_t xattr_size, acl_size;
};
static void look(int fd, struct state *state) {
  memset(state, 0, sizeof(*state));
  MUST(fstat(fd, &state->stat));
  state->xattr_size = fgetxattr(fd, "user.ckpt", state->xattr, sizeof(state->xattr));
  state->acl_size = fgetxattr(fd, "system.posix_acl_access", state->acl, sizeof(state->acl));
}
static void compare(const char *name, int fd, const struct state *before) {
  struct state now;
  look(fd, &now);
  const struct stat *a = &before->stat, *b = &now.stat;
  CHECK_EQ("%s: links", a->st_nlink, b->st_nlink, name);
  CHECK_EQ("%s: mode", a->st_mode, b->st_mode, name);
  CHECK_EQ("%s: owner", a->st_uid, b->st_uid, name);
  CHECK_EQ("%s: group", a->st_gid, b->st_gid, name);
  CHECK_EQ("%s: size", a->st_size, b->st_size, name);
  CHECK_EQ("%s: device", a->st_dev, b->st_dev, name);
  CHECK_EQ("%s: modified", a->st_mtim.tv_sec, b->st_mtim.tv_sec, name);
  CHECK_EQ("%s: modified, ns", a->st_mtim.tv_nsec, b->st_mtim.tv_nsec, name);
  /* an extended attribute may have a block of its own */
  CHECK("%s: blocks before %ld, after %ld", b->st_blocks <= a->st_blocks + 16, name, (long)a->st_blocks, (long)b->st_blocks);
  CHECK_EQ("%s: length of attribute", before->xattr_size, now.xattr_size, name);
  CHECK_BYTES("%s: attribute", before->xattr, now.xattr, sizeof(now.xattr), name);
  CHECK_EQ("%s: length of ACL", before->acl_size, now.acl_size, name);
  CHECK_BYTES("%s: ACL", before->acl, now.acl, sizeof(now.acl), name);
}
static void content(const char *name, int fd, off_t offset, uint64_t seed) {
  char bytes[CONTENT];
  CHECK_EQ("%s: read at %ld", CONTENT, pread(fd, bytes, CONTENT, offset), name, (long)offset);
  check_filled(name, bytes, CONTENT, seed);
}
static void put(int fd, off_t offset, uint64_t seed) {
  char bytes[CONTENT];
  check_fill(bytes, CONTENT, seed);
  if (pwrite(fd, bytes, CONTENT, offset) != CONTENT) check_die("cannot write: %s", strerror(errno));
}
static void expect(const char *what, volatile char *byte, char value) {
  for (int i = 0; i < 5000 && *byte != value; i++) check_sleep_ms(1);
  CHECK_EQ("%s", value, *byte, what);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  snprintf(place, sizeof(place), "%.4000s/ghosts-%d", argc > 2 ? argv[2] : check_dir, getpid());
  MUST(mkdir(place, 0755));

  int rich = make("rich", O_RDWR);
  put(rich, 0, 1);
  put(rich, FAR, 2);
  MUST(ftruncate(rich, FAR + (1 << 20)));
  MUST(fchown(rich, OWNER, GROUP));
  MUST(fchmod(rich, 04751));
  if (fsetxattr(rich, "user.ckpt", "value", 5, 0) != 0) check_note("no extended attributes in %s", place);
  if (fsetxattr(rich, "system.posix_acl_access", acl, sizeof(acl), 0) != 0) check_note("no ACLs in %s", place);
  MUST(fchmod(rich, 04751));
  int reader = (int)MUST(open(in_place("rich"), O_RDONLY | O_CLOEXEC));
  int logger = (int)MUST(open(in_place("rich"), O_WRONLY | O_APPEND));
  int path_only = (int)MUST(open(in_place("rich"), O_PATH));
  int careful = (int)MUST(open(in_place("rich"), O_RDWR | O_NOFOLLOW));
  int copy = (int)MUST(dup(rich));
  MUST(lseek(reader, 17, SEEK_SET));
  MUST(lseek(careful, 23, SEEK_SET));
  char *shared = (char *)MUST(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rich, 0));
  char *private = (char *)MUST(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, reader, 0));
  private[2 * PAGE] = 77;
  struct timespec times[2] = {{1000000001, 111222333}, {1000000002, 444555667}};
  MUST(futimens(rich, times));

  int mapped = make("mapped", O_RDWR);
  put(mapped, 0, 3);
  char *only_mapped = (char *)MUST(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0));
  MUST(close(mapped));

  int nameless = open(place, O_TMPFILE | O_RDWR | O_NOFOLLOW, 0640);
  if (nameless < 0) check_note("no O_TMPFILE in %s", place);
  else put(nameless, 0, 4);

  int one = make("one", O_RDWR);
  put(one, 0, 5);
  char other[4300];
  snprintf(other, sizeof(other), "%s/two", place);
  MUST(link(in_place("one"), other));
  int two = (int)MUST(open(other, O_RDONLY));

  int large = make("large", O_RDWR);
  put(large, 0, 6);
  put(large, VERY_FAR, 7);
  int empty = make("empty", O_WRONLY), hole = make("hole", O_RDWR);
  MUST(ftruncate(hole, 1000));
  int small = make("small", O_RDWR);
  if (pwrite(small, "small", 5, 0) != 5) check_die("cannot write");

  MUST(mkdir(in_place("gone"), 0700));
  int deep = make("gone/deep", O_RDWR);
  put(deep, 0, 8);
  for (const char **name = (const char *[]){"rich", "mapped", "one", "two", "large", "empty", "hole", "small",
                                            "gone/deep", NULL};
       *name; name++)
    MUST(unlink(in_place(*name)));
  MUST(rmdir(in_place("gone")));
  /* nothing is left there when the program is killed */
  if (argc > 2) MUST(rmdir(place));

  struct state state, small_state;
  look(rich, &state);
  look(small, &small_state);

  pid_t child = tree_fork("child");
  if (child == 0) {
    MUST(close(rich));
    char name[64];
    snprintf(name, sizeof(name), "/proc/self/fd/%d", copy);
    int again = (int)MUST(open(name, O_RDWR));
    tree_settled();
    expect("what the root wrote, in the child's mapping", shared + 10, 11);
    expect("what the root wrote, in the other mapping", only_mapped + 10, 12);
    char byte = 13;
    CHECK_EQ("the child writes", 1, pwrite(again, &byte, 1, 20));
    CHECK_EQ("position in common", 4321, lseek(copy, 0, SEEK_CUR));
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  /* when a copy was there before */
  if (mkdir(place, 0755) != 0) CHECK_EQ("the directory of the deleted files", EEXIST, errno);

  compare("rich", rich, &state);
  compare("small", small, &small_state);
  content("rich", rich, 0, 1);
  content("rich, behind a hole", reader, FAR, 2);
  char bytes[PAGE];
  CHECK_EQ("rich: read the hole", PAGE, pread(rich, bytes, PAGE, 1 << 20));
  check_zero("rich: hole", bytes, PAGE);
  CHECK_EQ("position of the reader", 17, lseek(reader, 0, SEEK_CUR));
  CHECK_EQ("position of the careful", 23, lseek(careful, 0, SEEK_CUR));
  CHECK_EQ("private page", 77, private[2 * PAGE]);
  CHECK_EQ("private page not written", shared[3 * PAGE], private[3 * PAGE]);
  check_filled("only mapped", only_mapped, CONTENT, 3);
  content("two names: one", one, 0, 5);
  content("two names: two", two, 0, 5);
  CHECK_EQ("two names: write", 1, pwrite(one, "X", 1, 30));
  CHECK_EQ("two names: read", 1, pread(two, bytes, 1, 30));
  CHECK_EQ("two names are one file", 'X', bytes[0]);
  content("large", large, 0, 6);
  content("large, far behind", large, VERY_FAR, 7);
  struct stat now;
  MUST(fstat(large, &now));
  CHECK_EQ("large: size", VERY_FAR + CONTENT, now.st_size);
  CHECK("large: %ld blocks", now.st_blocks < 2048, (long)now.st_blocks);
  MUST(fstat(empty, &now));
  CHECK_EQ("empty: size", 0, now.st_size);
  MUST(fstat(hole, &now));
  CHECK_EQ("hole: size", 1000, now.st_size);
  CHECK_EQ("hole: blocks", 0, now.st_blocks);
  CHECK_EQ("small", 5, pread(small, bytes, 100, 0));
  CHECK_BYTES("small", "small", bytes, 5);
  content("in a directory that is gone", deep, 0, 8);
  if (nameless >= 0) {
    content("without a name", nameless, 0, 4);
    char name[64];
    snprintf(name, sizeof(name), "/proc/self/fd/%d", nameless);
    CHECK_EQ("it can get a name", 0, linkat(AT_FDCWD, name, AT_FDCWD, in_place("named"), AT_SYMLINK_FOLLOW));
    CHECK_EQ("and lose it", 0, unlink(in_place("named")));
  }

  /* all that were one file are one file */
  CHECK_EQ("position set", 4321, lseek(rich, 4321, SEEK_SET));
  only_mapped[10] = 12;
  char eleven = 11;
  CHECK_EQ("the root writes", 1, pwrite(careful, &eleven, 1, 10));
  CHECK_EQ("seen in the shared mapping", 11, shared[10]);
  expect("what the child wrote, in the mapping", shared + 20, 13);
  CHECK_EQ("appended", 3, write(logger, "end", 3));
  CHECK_EQ("read at the end", 3, pread(reader, bytes, 10, FAR + (1 << 20)));
  MUST(fstat(path_only, &now));
  CHECK_EQ("size by O_PATH", FAR + (1 << 20) + 3, now.st_size);
  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("nothing of them is left", 0, rmdir(place));
  return check_finish();
}
