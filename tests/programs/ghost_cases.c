/*
 * Files whose path leads elsewhere or nowhere, one case for each argv[2]; argv[3] is the directory they are in, the
 * work directory unless given:
 *   relinked    opened as a, linked as b, a deleted, another a made: what is written has to be in b
 *   plain       made before its directory got an ACL and inode flags that new files inherit, then deleted
 *   reserved    deleted, with space that was reserved and never written
 *   newcomers   directories that were removed while they were the working directory, or open; another directory, a
 *               file and a symbolic link have their names now
 *   nested      directories in each other, all removed, the innermost being the working directory
 *   marked      names that end in " (deleted)", of files that are there, and of files that are not
 *   bytes       names with bytes that are no text, and with line ends
 *   fifo        an epoll that watches a fifo, and one that has no name any more
 *   sockets     three that listen: the file of the first has a second name, that of the second only another than it was
 *               bound to, and the third was renamed
 *   rotated     a log that was renamed, and then deleted; another has its name
 *   spool       files of a queue: renamed from directory to directory, deleted while they are open
 *   read_only   argv[4] is where the directory is mounted read-only: opened there, deleted here
 *   copied_up   `deleted`, `living` and `linked` of an overlay's lower layer: written to after they were opened for
 *               reading; the first is deleted, the last has another name
 *   lower       `lower` of an overlay's lower layer: opened, mapped, deleted, and made anew, and that is deleted, too
 *   subvolume   in a btrfs subvolume that was deleted
 *   fixed       made immutable or append-only since they were opened for writing: deleted ones, one that is there, and
 *               the directories of deleted ones
 *   root        a child whose root directory was removed
 *   locks       of a process on descriptors it has in common with its child, and of open files; of a deleted file, a
 *               renamed one, and one that is there
 *   projects    that quotas know: of deleted files and a directory, also none where its directory has one
 *   odd         a deleted file with a long name that another has; a file that is named like a deleted one of NFS; the
 *               directory keeps its time
 */
#include "check.h"
#include <dirent.h>
#include <linux/fs.h>
#include <linux/fiemap.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define PAGE 4096
static char paths[8][4300];
static const char *place;

static const char *in_place(const char *name) {
  static int next;
  char *path = paths[next++ & 7];
  snprintf(path, sizeof(*paths), "%.4000s/%s", place, name);
  return path;
}
static int make(const char *name, const char *text) {
  int fd = (int)MUST(open(in_place(name), O_RDWR | O_CREAT | O_EXCL, 0644));
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("cannot write %s", name);
  return fd;
}
static void put(const char *name, const char *text) { MUST(close(make(name, text))); }
static void expect_at(const char *name, int fd, const char *text) {
  char now[256] = "";
  CHECK_EQ("%s: size", strlen(text), pread(fd, now, sizeof(now) - 1, 0), name);
  CHECK_STRING("%s", text, now, name);
}
static void expect(const char *name, const char *text) {
  int fd = open(in_place(name), O_RDONLY | O_CLOEXEC);
  CHECK("%s can be opened", fd >= 0, name);
  if (fd >= 0) expect_at(name, fd, text), close(fd);
}
static void add(int fd, const char *text) { CHECK_EQ("write %s", strlen(text), write(fd, text, strlen(text)), text); }
static int names(void) {
  int count = 0;
  DIR *directory = opendir(place);
  if (!directory) return -1;
  for (struct dirent *entry; (entry = readdir(directory));) count++;
  closedir(directory);
  return count - 2;
}
static struct stat status(int fd) {
  struct stat now;
  MUST(fstat(fd, &now));
  return now;
}
static struct stat status_of(const char *path) {
  struct stat now;
  if (lstat(path, &now) != 0) check_line("%s is gone\n", path), memset(&now, 0, sizeof(now));
  return now;
}
static void untouched(const char *name, struct stat a, struct stat b) {
  CHECK_EQ("%s: inode", a.st_ino, b.st_ino, name);
  CHECK_EQ("%s: mode", a.st_mode, b.st_mode, name);
  CHECK_EQ("%s: owner", a.st_uid, b.st_uid, name);
  CHECK_EQ("%s: links", a.st_nlink, b.st_nlink, name);
  CHECK_EQ("%s: size", a.st_size, b.st_size, name);
}

static void relinked(void) {
  int fd = make("a", "one"), reader = (int)MUST(open(in_place("a"), O_RDONLY));
  MUST(link(in_place("a"), in_place("b")));
  MUST(unlink(in_place("a")));
  put("a", "new");
  check_ready();
  add(fd, ", two");
  expect("b", "one, two");
  expect("a", "new");
  expect_at("the reader", reader, "one, two");
  CHECK_EQ("names", 2, names());
}

static void plain(void) {
  /* version 2 of linux/posix_acl_xattr.h: user 4711 may read, by default */
  static const unsigned char acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0x67, 0x12, 0, 0, 4, 0, 5, 0,
                                      255, 255, 255, 255, 16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255};
  int fd = make("file", "content"), sub = (int)MUST(mkdir(in_place("sub"), 0750));
  sub = (int)MUST(open(in_place("sub"), O_RDONLY | O_DIRECTORY));
  int before = 0, sub_before = 0, now = 0;
  bool flags = ioctl(fd, FS_IOC_GETFLAGS, &before) == 0 && ioctl(sub, FS_IOC_GETFLAGS, &sub_before) == 0;
  struct stat then = status(fd), then_sub = status(sub);
  MUST(unlink(in_place("file")));
  MUST(rmdir(in_place("sub")));
  int directory = (int)MUST(open(place, O_RDONLY | O_DIRECTORY));
  if (setxattr(place, "system.posix_acl_default", acl, sizeof(acl), 0) != 0) check_note("no ACLs in %s", place);
  MUST(chmod(place, 02755));
  MUST(chown(place, 0, 4712));
  MUST(chmod(place, 02755));
  if (flags) {
    MUST(ioctl(directory, FS_IOC_GETFLAGS, &now));
    now |= FS_NOATIME_FL | FS_NODUMP_FL | FS_SYNC_FL;
    if (ioctl(directory, FS_IOC_SETFLAGS, &now) != 0) check_note("no inode flags in %s", place);
  }
  check_ready();
  for (int i = 0; i < 2; i++) {
    int of = i ? sub : fd;
    struct stat was = i ? then_sub : then, is = status(of);
    CHECK_EQ("mode", was.st_mode, is.st_mode);
    CHECK_EQ("group", was.st_gid, is.st_gid);
    CHECK_EQ("ACL", -1, fgetxattr(of, "system.posix_acl_access", NULL, 0));
    CHECK_EQ("default ACL", -1, fgetxattr(of, "system.posix_acl_default", NULL, 0));
    if (flags) MUST(ioctl(of, FS_IOC_GETFLAGS, &now)), CHECK_EQ("inode flags of %d", i ? sub_before : before, now, i);
  }
  expect_at("content", fd, "content");
}

static void reserved(void) {
  int fd = make("file", "content"), behind = make("behind", "content"), punched = make("punched", "");
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 20) != 0) check_note("no fallocate in %s", place);
  MUST(ftruncate(fd, 8 << 20));
  fallocate(behind, FALLOC_FL_KEEP_SIZE, 0, 1 << 20);
  static char bytes[1 << 20];
  check_fill(bytes, sizeof(bytes), 3);
  if (write(punched, bytes, sizeof(bytes)) != sizeof(bytes)) check_die("cannot write");
  if (fallocate(punched, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 64 * PAGE, 64 * PAGE) != 0) check_note("no holes in %s", place);
  memset(bytes + 64 * PAGE, 0, 64 * PAGE);
  int whole = make("whole", "");
  if (fallocate(whole, 0, 0, 1 << 20) != 0) check_note("no fallocate in %s", place);
  if (pwrite(whole, "in the middle", 13, 1 << 19) != 13) check_die("cannot write");
  int empty = make("empty", "");
  if (fallocate(empty, 0, 0, 2 * PAGE) != 0) MUST(ftruncate(empty, 2 * PAGE));
  off_t data = lseek(empty, 0, SEEK_DATA);
  MUST(unlink(in_place("empty")));
  /* tmpfs does not tell of this one */
  int none = make("none", "");
  fallocate(none, FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE);
  MUST(unlink(in_place("none")));
  MUST(fsync(fd)), MUST(fsync(behind)), MUST(fsync(punched)), MUST(fsync(whole));
  struct stat a = status(fd), b = status(behind), c = status(punched), d = status(whole);
  MUST(unlink(in_place("whole")));
  MUST(unlink(in_place("file")));
  MUST(unlink(in_place("behind")));
  MUST(unlink(in_place("punched")));
  check_ready();
  MUST(fsync(fd)), MUST(fsync(behind)), MUST(fsync(punched));
  expect_at("behind", behind, "content");
  struct stat now = status(fd);
  CHECK_EQ("size", a.st_size, now.st_size);
  /* tmpfs does not tell what is reserved */
  if (ioctl(fd, FS_IOC_FIEMAP, &(struct fiemap){.fm_length = ~0ULL}) == 0) {
    CHECK_EQ("blocks", a.st_blocks, now.st_blocks);
    CHECK_EQ("blocks behind the end", b.st_blocks, status(behind).st_blocks);
  }
  CHECK_EQ("blocks with a hole", c.st_blocks, status(punched).st_blocks);
  CHECK_EQ("blocks of a whole one", d.st_blocks, status(whole).st_blocks);
  CHECK_EQ("data of an empty one", data, lseek(empty, 0, SEEK_DATA));
  CHECK_EQ("size without data", 0, status(none).st_size);
  static char read_bytes[1 << 20];
  CHECK_EQ("read", sizeof(read_bytes), pread(punched, read_bytes, sizeof(read_bytes), 0));
  CHECK_BYTES("with a hole", bytes, read_bytes, sizeof(bytes));
}

static void gone(const char *name, int fd) {
  struct stat now = status(fd);
  CHECK("%s is a directory", S_ISDIR(now.st_mode), name);
  char link[64], to[4300] = "";
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  MUST(readlink(link, to, sizeof(to) - 1));
  CHECK("%s: %s is deleted", strstr(to, " (deleted)") != NULL, name, to);
  CHECK_EQ("%s: nothing can be made in it", -1, openat(fd, "new", O_CREAT | O_WRONLY, 0600), name);
  CHECK_EQ("%s: it has no name", ENOENT, errno, name);
}
static void newcomers(void) {
  static const char *const NAMES[] = {"directory", "file", "link", "cwd", "cwd/inner"};
  int fds[5];
  put("elsewhere", "elsewhere");
  for (int i = 0; i < 5; i++) {
    MUST(mkdir(in_place(NAMES[i]), 0700));
    MUST(chmod(in_place(NAMES[i]), 0700 + (mode_t)i));
    fds[i] = (int)MUST(open(in_place(NAMES[i]), (i & 1 ? O_PATH : O_RDONLY) | O_DIRECTORY));
  }
  MUST(chdir(in_place("cwd")));
  for (int i = 5; i-- > 0;) MUST(rmdir(in_place(NAMES[i])));
  MUST(mkdir(in_place("directory"), 0711));
  put("directory/inside", "inside");
  put("file", "a file");
  MUST(symlink("elsewhere", in_place("link")));
  MUST(mkdir(in_place("cwd"), 01777));
  put("cwd/inner", "inner");
  MUST(chown(in_place("cwd"), 77, 88));
  struct stat then[5];
  for (int i = 0; i < 5; i++) then[i] = status_of(in_place(NAMES[i]));
  int count = names();
  check_ready();
  for (int i = 0; i < 5; i++) {
    untouched(NAMES[i], then[i], status_of(in_place(NAMES[i])));
    gone(NAMES[i], fds[i]);
    CHECK_EQ("%s: mode of the old one", S_IFDIR | (0700 + i), status(fds[i]).st_mode, NAMES[i]);
  }
  expect("directory/inside", "inside");
  expect("file", "a file");
  expect("cwd/inner", "inner");
  expect("elsewhere", "elsewhere");
  CHECK_EQ("names", count, names());
  struct stat cwd;
  CHECK_EQ("stat .", 0, stat(".", &cwd));
  CHECK_EQ("the working directory is the open one", status(fds[3]).st_ino, cwd.st_ino);
  CHECK_EQ("getcwd", -1, syscall(SYS_getcwd, paths[0], sizeof(paths[0])));
}

static void nested(void) {
  int fds[4];
  const char *const NAMES[] = {"x", "x/y", "x/y/z", "x/y/z/w"};
  for (int i = 0; i < 4; i++) {
    MUST(mkdir(in_place(NAMES[i]), 0700));
    fds[i] = (int)MUST(open(in_place(NAMES[i]), O_RDONLY | O_DIRECTORY));
  }
  MUST(chdir(in_place(NAMES[3])));
  for (int i = 4; i-- > 0;) MUST(rmdir(in_place(NAMES[i])));
  struct stat up;
  check_ready();
  for (int i = 0; i < 4; i++) gone(NAMES[i], fds[i]);
  for (int i = 1; i < 4; i++) {
    CHECK_EQ("%s: ..", 0, fstatat(fds[i], "..", &up, 0), NAMES[i]);
    CHECK_EQ("%s: .. is the one above", status(fds[i - 1]).st_ino, up.st_ino, NAMES[i]);
  }
  CHECK_EQ("stat ..", 0, stat("..", &up));
  CHECK_EQ(".. of the working directory", status(fds[2]).st_ino, up.st_ino);
  CHECK_EQ("above all: ..", 0, fstatat(fds[0], "..", &up, 0));
  CHECK_EQ("above all: .. is there", status_of(place).st_ino, up.st_ino);
  CHECK_EQ("names", 0, names());
}

static void marked(void) {
  int living = make("living (deleted)", "living"), dead = make("dead (deleted)", "dead"), twice = make("x", "x");
  put("x (deleted)", "another x");
  MUST(unlink(in_place("dead (deleted)")));
  MUST(unlink(in_place("x")));
  char *mapped[3];
  for (int i = 0; i < 3; i++) mapped[i] = (char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (int[]){living, dead, twice}[i], 0));
  struct stat then = status(living);
  check_ready();
  untouched("living", then, status(living));
  untouched("living, by its name", then, status_of(in_place("living (deleted)")));
  mapped[0][0] = 'L', mapped[1][0] = 'D', mapped[2][0] = 'X';
  expect_at("living", living, "Living");
  expect("living (deleted)", "Living");
  expect_at("dead", dead, "Dead");
  expect_at("x", twice, "X");
  expect("x (deleted)", "another x");
  mapped[0][0] = 'l';
  CHECK_EQ("names", 2, names());
}

static void bytes(void) {
  MUST(mkdir(in_place("d\xff\n\xc3"), 0755));
  int dead = make("d\xff\n\xc3/f\x80\n", "dead"), other = make("d\xff\n\xc3/one\xfe", "other"), living = make("d\xff\n\xc3/\\012\n", "living");
  MUST(link(in_place("d\xff\n\xc3/one\xfe"), in_place("d\xff\n\xc3/two\xfe\n")));
  MUST(unlink(in_place("d\xff\n\xc3/one\xfe")));
  MUST(unlink(in_place("d\xff\n\xc3/f\x80\n")));
  char *mapped[3];
  for (int i = 0; i < 3; i++) {
    int fd = (int[]){dead, other, living}[i];
    mapped[i] = (char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  }
  check_ready();
  mapped[0][0] = 'D', mapped[1][0] = 'O', mapped[2][0] = 'L';
  expect_at("dead", dead, "Dead");
  expect_at("other", other, "Other");
  expect("d\xff\n\xc3/two\xfe\n", "Other");
  expect("d\xff\n\xc3/\\012\n", "Living");
  mapped[1][0] = 'o', mapped[2][0] = 'l';
  CHECK_EQ("names", 1, names());
}

static void fifo(void) {
  int epoll = (int)MUST(epoll_create1(EPOLL_CLOEXEC)), fds[2];
  for (int i = 0; i < 2; i++) {
    MUST(mkfifo(in_place(i ? "gone" : "there"), 0600));
    fds[i] = (int)MUST(open(in_place(i ? "gone" : "there"), O_RDWR | O_NONBLOCK));
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 10 + (uint32_t)i};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event));
  }
  MUST(unlink(in_place("gone")));
  check_ready();
  struct epoll_event events[2];
  CHECK_EQ("nothing yet", 0, epoll_wait(epoll, events, 2, 0));
  for (int i = 0; i < 2; i++) {
    add(fds[i], "text");
    CHECK_EQ("one is ready", 1, epoll_wait(epoll, events, 2, 0));
    CHECK_EQ("it is this one", 10 + i, events[0].data.u32);
    CHECK_EQ("read", 4, read(fds[i], (char[8]){0}, 8));
  }
}

static void call(const char *name, int listener, mode_t mode) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, name); /* the working directory is the place */
  int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
  CHECK_EQ("connect to %s", 0, connect(fd, (struct sockaddr *)&address, sizeof(address)), name);
  int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  CHECK("%s leads to the one that listens", accepted >= 0, name);
  CHECK_EQ("%s: mode", S_IFSOCK | mode, status_of(name).st_mode, name);
  close(accepted), close(fd);
}
static void sockets(void) {
  int fds[3];
  for (int i = 0; i < 3; i++) {
    char name[8];
    sprintf(name, "s%d", i);
    /* an absolute name; it has to be short */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(in_place(name)) >= sizeof(address.sun_path)) check_die("%s is too long", in_place(name));
    strcpy(address.sun_path, in_place(name));
    fds[i] = (int)MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    MUST(bind(fds[i], (struct sockaddr *)&address, sizeof(address)));
    MUST(listen(fds[i], 5));
    MUST(chmod(in_place(name), 0600 + (mode_t)i));
  }
  MUST(link(in_place("s0"), in_place("s0 too")));
  MUST(link(in_place("s1"), in_place("s1 too")));
  MUST(unlink(in_place("s1")));
  MUST(rename(in_place("s2"), in_place("s2 now")));
  MUST(chdir(place));
  check_ready();
  call("s0", fds[0], 0600), call("s0 too", fds[0], 0600), call("s1 too", fds[1], 0601), call("s2 now", fds[2], 0602);
  CHECK_EQ("s0 and its link are one", status_of("s0").st_ino, status_of("s0 too").st_ino);
  CHECK_EQ("links", 2, status_of("s0").st_nlink);
  CHECK_EQ("names", 4, names());
}

static void rotated(void) {
  int first = (int)MUST(open(in_place("log"), O_WRONLY | O_APPEND | O_CREAT, 0640)), second, now;
  add(first, "first\n");
  MUST(rename(in_place("log"), in_place("log.1")));
  second = (int)MUST(open(in_place("log"), O_WRONLY | O_APPEND | O_CREAT, 0640));
  add(second, "second\n");
  MUST(rename(in_place("log.1"), in_place("log.2")));
  MUST(rename(in_place("log"), in_place("log.1")));
  MUST(unlink(in_place("log.1")));
  now = (int)MUST(open(in_place("log"), O_WRONLY | O_APPEND | O_CREAT, 0640));
  add(now, "now\n");
  MUST(rename(in_place("log.2"), in_place("log.1")));
  check_ready();
  add(first, "more\n");
  add(second, "lost\n");
  add(now, "more\n");
  expect("log.1", "first\nmore\n");
  expect("log", "now\nmore\n");
  char link[64], text[64] = "";
  snprintf(link, sizeof(link), "/proc/self/fd/%d", second);
  int again = (int)MUST(open(link, O_RDONLY));
  CHECK_EQ("read", 12, read(again, text, sizeof(text)));
  CHECK_STRING("the deleted one", "second\nlost\n", text);
  CHECK_EQ("names", 2, names());
}

static void spool(void) {
  static const char *const QUEUES[] = {"maildrop", "incoming", "active", "deferred"};
  int fds[12], held = 0;
  char from[64], to[64];
  for (int i = 0; i < 4; i++) MUST(mkdir(in_place(QUEUES[i]), 0700));
  for (int i = 0; i < 12; i++) {
    snprintf(from, sizeof(from), "maildrop/%X%05d", i, i);
    fds[held++] = make(from, from);
    MUST(fchmod(fds[i], 0700));
    for (int queue = 1; queue <= i % 4; queue++) {
      snprintf(to, sizeof(to), "%s/%X%05d", QUEUES[queue], i, i);
      MUST(rename(in_place(from), in_place(to)));
      strcpy(from, to);
    }
    if (i % 3 == 0) MUST(unlink(in_place(from)));
    if (i % 3 == 1) {
      /* and the name is used again */
      snprintf(to, sizeof(to), "deferred/%X%05d", 11 - i, i);
      MUST(link(in_place(from), in_place(to)));
      MUST(unlink(in_place(from)));
      put(from, "another message");
    }
  }
  check_ready();
  for (int i = 0; i < 12; i++) {
    snprintf(from, sizeof(from), "maildrop/%X%05d", i, i);
    snprintf(to, sizeof(to), "%s/%X%05d", QUEUES[i % 4], i, i);
    expect_at(from, fds[i], from);
    CHECK_EQ("%s: mode", S_IFREG | 0700, status(fds[i]).st_mode, from);
    /* a link that a dump made may be one more */
    CHECK("%s: %ld links", (i % 3 != 0) == (status(fds[i]).st_nlink > 0), from, (long)status(fds[i]).st_nlink);
    if (i % 3 == 0) CHECK_EQ("%s: nothing is there", -1, access(in_place(to), F_OK), to);
    if (i % 3 == 1) {
      expect(to, "another message");
      snprintf(to, sizeof(to), "deferred/%X%05d", 11 - i, i);
      expect(to, from);
    }
    if (i % 3 == 2) expect(to, from);
  }
}

static void read_only(const char *mount) {
  put("file", "content");
  put("other", "other");
  MUST(mkdir(in_place("directory"), 0700));
  MUST(link(in_place("other"), in_place("alias")));
  char path[4300], link_before[300] = "", link_now[300] = "", at[64];
  int fds[3];
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof(path), "%s/%s", mount, (const char *[]){"file", "other", "directory"}[i]);
    fds[i] = (int)MUST(open(path, O_RDONLY));
  }
  if (open(path, O_WRONLY | O_TMPFILE, 0600) >= 0 || errno != EROFS) check_die("%s can be written to", mount);
  char *mapped = (char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fds[0], 0));
  MUST(unlink(in_place("file")));
  MUST(unlink(in_place("other")));
  MUST(rmdir(in_place("directory")));
  snprintf(at, sizeof(at), "/proc/self/fd/%d", fds[0]);
  MUST(readlink(at, link_before, sizeof(link_before) - 1));
  check_ready();
  MUST(readlink(at, link_now, sizeof(link_now) - 1));
  CHECK_STRING("link", link_before, link_now);
  expect_at("file", fds[0], "content");
  expect_at("other", fds[1], "other");
  gone("directory", fds[2]);
  CHECK_BYTES("mapped", "content", mapped, 7);
  CHECK_EQ("it is as read-only as before", -1, open(at, O_WRONLY));
  CHECK_EQ("because of the mount", EROFS, errno);
  CHECK_EQ("and its mode cannot be changed", -1, fchmod(fds[0], 0600));
  CHECK_EQ("names", 1, names());
}

static void copied_up(void) {
  int reader = (int)MUST(open(in_place("deleted"), O_RDONLY)), writer = (int)MUST(open(in_place("deleted"), O_RDWR));
  int living_reader = (int)MUST(open(in_place("living"), O_RDONLY)), living = (int)MUST(open(in_place("living"), O_RDWR));
  MUST(link(in_place("linked"), in_place("linked too")));
  int linked = (int)MUST(open(in_place("linked"), O_RDWR));
  add(writer, "now");
  add(living, "now");
  add(linked, "now");
  MUST(unlink(in_place("deleted")));
  MUST(unlink(in_place("linked")));
  check_ready();
  add(writer, " and then");
  add(living, " and then");
  add(linked, " and then");
  expect_at("deleted", reader, "now and then");
  expect_at("living", living_reader, "now and then");
  expect("living", "now and then");
  expect("linked too", "now and then");
}

static void lower(void) {
  int fd = (int)MUST(open(in_place("lower"), O_RDONLY));
  char *mapped = (char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  MUST(unlink(in_place("lower")));
  put("lower", "new");
  int now = (int)MUST(open(in_place("lower"), O_RDONLY));
  char *mapped_now = (char *)MUST(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, now, 0));
  MUST(unlink(in_place("lower")));
  check_ready();
  expect_at("of the lower layer", fd, "low");
  expect_at("of the upper layer", now, "new");
  CHECK_BYTES("mapped", "low", mapped, 3);
  CHECK_BYTES("mapped, of the upper layer", "new", mapped_now, 3);
  CHECK_EQ("it has no name", -1, access(in_place("lower"), F_OK));
}

static void subvolume(void) {
  char command[4600];
  snprintf(command, sizeof(command), "btrfs -q subvolume create %s", in_place("volume"));
  MUST(system(command) ? -1 : 0);
  int fd = make("volume/file", "content");
  char *mapped = (char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  snprintf(command, sizeof(command), "btrfs -q subvolume delete %s", in_place("volume"));
  MUST(system(command) ? -1 : 0);
  check_ready();
  mapped[0] = 'C';
  add(fd, ", more");
  expect_at("content", fd, "Content, more");
  CHECK_EQ("names", 0, names());
}

static bool flag(int fd, int bit, bool on) {
  int flags = 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return false;
  flags = on ? flags | bit : flags & ~bit;
  return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}
static bool has_flag(int fd, int bit) {
  int flags = 0;
  return ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & bit);
}
static void fixed(void) {
  static const int BITS[] = {FS_IMMUTABLE_FL, FS_APPEND_FL, FS_IMMUTABLE_FL, FS_APPEND_FL};
  static const char *const NAMES[] = {"immutable", "append-only", "living", "log"};
  int writers[4], readers[4], directories[2], inside[2];
  char *mapped[4], name[64];
  bool flags = true;
  for (int i = 0; i < 4; i++) {
    writers[i] = make(NAMES[i], "content");
    readers[i] = (int)MUST(open(in_place(NAMES[i]), O_RDONLY));
    /* of a file that is there, only for reading: nothing could be mapped otherwise */
    mapped[i] = (char *)MUST(mmap(NULL, PAGE, PROT_READ | (i < 2 ? PROT_WRITE : 0), MAP_SHARED, i < 2 ? writers[i] : readers[i], 0));
    if (i < 2) MUST(unlink(in_place(NAMES[i])));
    flags &= flag(readers[i], BITS[i], true);
  }
  for (int i = 0; i < 2; i++) {
    MUST(mkdir(in_place(i ? "fixed" : "growing"), 0755));
    directories[i] = (int)MUST(open(in_place(i ? "fixed" : "growing"), O_RDONLY | O_DIRECTORY));
    sprintf(name, "%s/file", i ? "fixed" : "growing");
    inside[i] = make(name, "inside");
    MUST(unlink(in_place(name)));
    flags &= flag(directories[i], BITS[1 - i], true);
  }
  if (!flags) check_note("no such flags in %s", place);
  check_ready();
  for (int i = 0; i < 2; i++) {
    CHECK_EQ("directory %d: names", -1, unlinkat(directories[i], "file", 0), i);
    CHECK("directory %d: flag", !flags || has_flag(directories[i], BITS[1 - i]), i);
    flag(directories[i], BITS[1 - i], false);
    expect_at("inside", inside[i], "inside");
    CHECK_EQ("inside: links", 0, status(inside[i]).st_nlink);
  }
  for (int i = 0; i < 4; i++) {
    CHECK("%s: flag", !flags || has_flag(readers[i], BITS[i]), NAMES[i]);
    flag(readers[i], BITS[i], false);
    add(writers[i], ", more");
    if (i < 2) mapped[i][0] = 'C';
    expect_at(NAMES[i], readers[i], i < 2 ? "Content, more" : "content, more");
    CHECK_BYTES("mapped", i < 2 ? "Content, more" : "content, more", mapped[i], 13);
    if (i < 2) mapped[i][0] = 'c';
  }
  expect("living", "content, more");
  CHECK_EQ("names", 4, names());
}

static struct fsxattr extended(int fd) {
  struct fsxattr now = {0};
  ioctl(fd, FS_IOC_FSGETXATTR, &now);
  return now;
}
static bool set_project(int fd, unsigned project, bool inherit) {
  struct fsxattr wanted = extended(fd);
  wanted.fsx_projid = project;
  if (inherit) wanted.fsx_xflags |= FS_XFLAG_PROJINHERIT;
  return ioctl(fd, FS_IOC_FSSETXATTR, &wanted) == 0;
}
static void projects(void) {
  static const char *const NAMES[] = {"inside/none", "inside/its", "small", "large", "removed"};
  static char bytes[5 * PAGE];
  int fds[5], directory;
  struct fsxattr before[5];
  MUST(mkdir(in_place("inside"), 0755));
  MUST(mkdir(in_place("removed"), 0755));
  directory = (int)MUST(open(in_place("inside"), O_RDONLY | O_DIRECTORY));
  if (!set_project(directory, 90, true)) check_note("no projects in %s", place);
  MUST(close(directory));
  for (int i = 0; i < 4; i++) {
    fds[i] = make(NAMES[i], "content");
    if (i == 3 && write(fds[i], bytes, sizeof(bytes)) != sizeof(bytes)) check_die("cannot write");
    MUST(unlink(in_place(NAMES[i])));
  }
  fds[4] = (int)MUST(open(in_place("removed"), O_RDONLY | O_DIRECTORY));
  set_project(fds[0], 0, false), set_project(fds[2], 92, false), set_project(fds[3], 93, false), set_project(fds[4], 94, true);
  MUST(rmdir(in_place("removed")));
  for (int i = 0; i < 5; i++) before[i] = extended(fds[i]);
  check_ready();
  for (int i = 0; i < 5; i++) {
    CHECK_EQ("%s: project", before[i].fsx_projid, extended(fds[i]).fsx_projid, NAMES[i]);
    CHECK_EQ("%s: inherited", before[i].fsx_xflags & FS_XFLAG_PROJINHERIT, extended(fds[i]).fsx_xflags & FS_XFLAG_PROJINHERIT, NAMES[i]);
  }
}

static void in_removed_root(int to, int from) {
  struct stat before, now, cwd;
  if (chroot(in_place("root")) != 0 || chdir("/") != 0) _exit(1);
  char word = 'r';
  if (write(to, &word, 1) != 1 || read(from, &word, 1) != 1 || stat("/", &before) != 0) _exit(2);
  /* removed; and after the restore */
  if (write(to, &word, 1) != 1 || read(from, &word, 1) != 1) _exit(3);
  if (stat("/", &now) != 0 || stat(".", &cwd) != 0) _exit(4);
  if (now.st_mode != before.st_mode || now.st_uid != before.st_uid || now.st_ino != cwd.st_ino) _exit(5);
  _exit(mkdir("/new", 0700) == -1 && errno == ENOENT ? 0 : 6);
}
static void root(void) {
  int up[2], down[2], ended = -1;
  char word;
  MUST(mkdir(in_place("root"), 0751));
  MUST(chown(in_place("root"), 12, 34));
  MUST(pipe2(up, O_CLOEXEC));
  MUST(pipe2(down, O_CLOEXEC));
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) in_removed_root(up[1], down[0]);
  MUST(read(up[0], &word, 1));
  MUST(rmdir(in_place("root")));
  MUST(write(down[1], &word, 1));
  MUST(read(up[0], &word, 1));
  check_ready();
  MUST(write(down[1], &word, 1));
  CHECK_EQ("waitpid", child, waitpid(child, &ended, 0));
  CHECK_EQ("what the child saw", 0, ended);
  CHECK_EQ("names", 0, names());
}

static int lock_range(int fd, int command, long start) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 2};
  return fcntl(fd, command, &range);
}
#define FILES 3
static void try_locks(const int *fds, const int *others, int from) {
  char word;
  if (read(from, &word, 1) != 1) _exit(1);
  for (int i = 0; i < FILES; i++) {
    /* the parent's, though the open file is the same; and that of another open file */
    if (lock_range(fds[i], F_SETLK, 2) != -1 || errno != EAGAIN) _exit(10 + i);
    if (lock_range(fds[i], F_OFD_SETLK, 6) != -1 || errno != EAGAIN) _exit(20 + i);
    /* what nobody has, and what this open file has */
    if (lock_range(fds[i], F_SETLK, 0) != 0 || lock_range(others[i], F_OFD_SETLK, 6) != 0) _exit(30 + i);
  }
  _exit(0);
}
static void locks(void) {
  static const char *const NAMES[FILES] = {"gone", "renamed", "there"};
  int fds[FILES], others[FILES], down[2], ended = -1;
  for (int i = 0; i < FILES; i++) {
    fds[i] = make(NAMES[i], "0123456789");
    others[i] = (int)MUST(open(in_place(NAMES[i]), O_RDWR));
    MUST(lock_range(fds[i], F_SETLK, 2));
    MUST(lock_range(others[i], F_OFD_SETLK, 6));
  }
  MUST(unlink(in_place("gone")));
  MUST(rename(in_place("renamed"), in_place("renamed now")));
  MUST(pipe2(down, O_CLOEXEC));
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) try_locks(fds, others, down[0]);
  check_ready();
  MUST(write(down[1], "x", 1));
  CHECK_EQ("waitpid", child, waitpid(child, &ended, 0));
  CHECK_EQ("what the child met", 0, ended);
  CHECK_EQ("names", 2, names());
}

static void odd(void) {
  static const char SILLY[] = ".nfs0123456789abcdef01234567";
  char name[251];
  memset(name, 'n', sizeof(name) - 1);
  name[sizeof(name) - 1] = 0;
  int long_name = make(name, "old"), silly = make(SILLY, "silly");
  MUST(unlink(in_place(name)));
  put(name, "new");
  struct timespec times[2] = {{1000000001, 111222333}, {1000000002, 444555667}};
  MUST(utimensat(AT_FDCWD, place, times, 0));
  ino_t inode = status(silly).st_ino;
  check_ready();
  struct stat now = status_of(place);
  CHECK_EQ("directory: modified", times[1].tv_sec, now.st_mtim.tv_sec);
  CHECK_EQ("directory: modified, ns", times[1].tv_nsec, now.st_mtim.tv_nsec);
  expect_at("long name", long_name, "old");
  expect(name, "new");
  CHECK_EQ("inode", inode, status(silly).st_ino);
  add(silly, " name");
  expect(SILLY, "silly name");
  CHECK_EQ("names", 2, names());
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const char *kind = argc > 2 ? argv[2] : "";
  place = argc > 3 ? argv[3] : check_dir;
  if (strcmp(kind, "relinked") == 0) relinked();
  else if (strcmp(kind, "plain") == 0) plain();
  else if (strcmp(kind, "reserved") == 0) reserved();
  else if (strcmp(kind, "newcomers") == 0) newcomers();
  else if (strcmp(kind, "nested") == 0) nested();
  else if (strcmp(kind, "marked") == 0) marked();
  else if (strcmp(kind, "bytes") == 0) bytes();
  else if (strcmp(kind, "fifo") == 0) fifo();
  else if (strcmp(kind, "sockets") == 0) sockets();
  else if (strcmp(kind, "rotated") == 0) rotated();
  else if (strcmp(kind, "spool") == 0) spool();
  else if (strcmp(kind, "read_only") == 0) read_only(argv[4]);
  else if (strcmp(kind, "copied_up") == 0) copied_up();
  else if (strcmp(kind, "lower") == 0) lower();
  else if (strcmp(kind, "subvolume") == 0) subvolume();
  else if (strcmp(kind, "fixed") == 0) fixed();
  else if (strcmp(kind, "root") == 0) root();
  else if (strcmp(kind, "locks") == 0) locks();
  else if (strcmp(kind, "projects") == 0) projects();
  else if (strcmp(kind, "odd") == 0) odd();
  else check_die("kind %s is not known", kind);
  return check_finish();
}
