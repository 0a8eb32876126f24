/*
 * inotify instances: what they watch by which numbers, masks, events that come afterwards, flags, one that a child
 * shares, one that an epoll watches. Argument: the directory to do it in; the work directory unless given. Or
 * `plain`: only what CRIU restores as well.
 */
#include "tree.h"
#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static char place[4110];

static const char *in(const char *name) {
  static char paths[8][4400];
  static int next;
  char *path = paths[next++ & 7];
  snprintf(path, sizeof(paths[0]), "%s/%s", place, name);
  return path;
}

static void make(const char *name) { MUST(close((int)MUST(open(in(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0644)))); }

static int pending(int fd) {
  int bytes = -1;
  MUST(ioctl(fd, FIONREAD, &bytes));
  return bytes;
}

/** The next event, as "wd mask name"; "" when there is none. */
static const char *next(int fd) {
  static struct {
    struct inotify_event head;
    char name[256];
  } event;
  static char texts[4][400];
  static int number;
  char *text = texts[number++ & 3];
  text[0] = 0;
  // Exactly one: as long a buffer as the event needs.
  for (size_t room = sizeof(event.head); room <= sizeof(event); room += 16) {
    ssize_t n = read(fd, &event, room);
    if (n < 0 && errno == EINVAL) continue;
    if (n < 0) return text;
    snprintf(text, sizeof(texts[0]), "%d %x %s", event.head.wd, event.head.mask, event.head.len ? event.name : "");
    return text;
  }
  return "too long";
}

#define EXPECT(fd, ...) CHECK_STRING("event", check_name(__VA_ARGS__), next(fd))

static void events_away(int fd) {
  while (*next(fd)) continue;
}

static void clean(void) {
  const char *names[] = {"dir/child", "dir", "file", "moved", "renamed", "link", "gone", "once", "held", "other"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
    if (unlink(in(names[i])) != 0) rmdir(in(names[i]));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain = argc > 2 && !strcmp(argv[2], "plain");
  snprintf(place, sizeof(place), "%s/watched", argc > 2 && !plain ? argv[2] : check_dir);
  mkdir(place, 0755);
  clean();
  MUST(mkdir(in("dir"), 0755));
  make("file"), make("gone"), make("once"), make("renamed"), make("other");
  MUST(symlink("/nowhere", in("link")));

  int fd = (int)MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  int gone = (int)MUST(inotify_add_watch(fd, in("gone"), IN_ALL_EVENTS));
  int dir = (int)MUST(inotify_add_watch(fd, in("dir"), IN_ALL_EVENTS | IN_EXCL_UNLINK));
  int early = (int)MUST(inotify_add_watch(fd, in("other"), IN_ATTRIB));
  int file = (int)MUST(inotify_add_watch(fd, in("file"), IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
  int once = (int)MUST(inotify_add_watch(fd, in("once"), IN_ATTRIB | IN_ONESHOT));
  int moved = (int)MUST(inotify_add_watch(fd, in("renamed"), IN_ATTRIB | IN_MOVE_SELF));
  int link = plain ? 0 : (int)MUST(inotify_add_watch(fd, in("link"), IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW));
  int root = (int)MUST(inotify_add_watch(fd, "/", IN_MOVE_SELF));
  MUST(inotify_rm_watch(fd, early));
  EXPECT(fd, "%d %x ", early, IN_IGNORED);
  // The watch goes where the file goes.
  MUST(rename(in("renamed"), in("moved")));
  make("renamed");
  EXPECT(fd, "%d %x ", moved, IN_MOVE_SELF);
  MUST(unlink(in("gone")));
  EXPECT(fd, "%d %x ", gone, IN_ATTRIB);
  EXPECT(fd, "%d %x ", gone, IN_DELETE_SELF);
  EXPECT(fd, "%d %x ", gone, IN_IGNORED);

  // One that fired, and one that nothing watches by; a number far away.
  int second = (int)MUST(inotify_init1(0));
  int fired = (int)MUST(inotify_add_watch(second, in("once"), IN_ATTRIB | IN_ONESHOT));
  MUST(chmod(in("once"), 0600));
  EXPECT(second, "%d %x ", fired, IN_ATTRIB);
  EXPECT(second, "%d %x ", fired, IN_IGNORED);
  EXPECT(fd, "%d %x ", once, IN_ATTRIB);
  EXPECT(fd, "%d %x ", once, IN_IGNORED);
  if (!plain) once = (int)MUST(inotify_add_watch(fd, in("once"), IN_ATTRIB | IN_ONESHOT));
  int all = (int)MUST(inotify_add_watch(second, in("dir"), IN_CREATE));
  int same = fcntl(second, F_DUPFD_CLOEXEC, 100);
  MUST(same);
  int epoll = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.u64 = 7}}));

  int gate[2];
  MUST(pipe2(gate, O_CLOEXEC));
  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    char go;
    CHECK_EQ("told to go on", 1, read(gate[0], &go, 1));
    MUST(mkdir(in("dir/child"), 0755));
    MUST(rmdir(in("dir/child")));
    tree_report(0);
  }
  tree_await("child");
  check_ready();

  CHECK_EQ("nothing came of the restore", 0, pending(fd));
  CHECK_EQ("nor here", 0, pending(second));
  struct epoll_event event = {0, {0}};
  CHECK_EQ("epoll is quiet", 0, epoll_wait(epoll, &event, 1, 0));
  MUST(write(gate[1], "", 1));
  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("epoll tells", 1, epoll_wait(epoll, &event, 1, 5000));
  CHECK_EQ("its data", 7, event.data.u64);
  EXPECT(fd, "%d %x child", dir, IN_CREATE | IN_ISDIR);
  EXPECT(fd, "%d %x child", dir, IN_DELETE | IN_ISDIR);
  EXPECT(fd, "%s", "");
  struct pollfd poll_second = {.fd = same, .events = POLLIN};
  CHECK_EQ("a duplicate tells", 1, poll(&poll_second, 1, 5000));
  EXPECT(same, "%d %x child", all, IN_CREATE | IN_ISDIR);
  CHECK_EQ("flags", O_RDONLY | O_NONBLOCK, fcntl(fd, F_GETFL) & ~O_LARGEFILE);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(fd, F_GETFD));
  CHECK_EQ("flags of the second", O_RDONLY, fcntl(second, F_GETFL) & ~O_LARGEFILE);

  int writing = (int)MUST(open(in("file"), O_WRONLY));
  MUST(write(writing, "x", 1));
  EXPECT(fd, "%d %x ", file, IN_MODIFY);
  MUST(close(writing));
  MUST(chmod(in("renamed"), 0600));
  EXPECT(fd, "%s", "");
  MUST(chmod(in("moved"), 0600));
  EXPECT(fd, "%d %x ", moved, IN_ATTRIB);
  if (!plain) {
    MUST(chmod(in("once"), 0640));
    EXPECT(fd, "%d %x ", once, IN_ATTRIB);
    EXPECT(fd, "%d %x ", once, IN_IGNORED);
    MUST(unlink(in("link")));
    EXPECT(fd, "%d %x ", link, IN_ATTRIB);
    EXPECT(fd, "%d %x ", link, IN_DELETE_SELF);
    EXPECT(fd, "%d %x ", link, IN_IGNORED);
  }
  // What is deleted while it is open (IN_EXCL_UNLINK) tells its directory nothing more.
  int held = (int)MUST(open(in("dir/child"), O_CREAT | O_RDWR, 0644));
  EXPECT(fd, "%d %x child", dir, IN_CREATE);
  EXPECT(fd, "%d %x child", dir, IN_OPEN);
  MUST(unlink(in("dir/child")));
  EXPECT(fd, "%d %x child", dir, IN_DELETE);
  MUST(write(held, "x", 1));
  MUST(close(held));
  if (plain) events_away(fd);
  EXPECT(fd, "%s", "");
  MUST(unlink(in("file")));
  EXPECT(fd, "%d %x ", file, IN_ATTRIB);
  EXPECT(fd, "%d %x ", file, IN_DELETE_SELF);
  EXPECT(fd, "%d %x ", file, IN_IGNORED);
  CHECK_EQ("the one of the root directory is there", 0, inotify_rm_watch(fd, root));
  EXPECT(fd, "%d %x ", root, IN_IGNORED);
  int added = inotify_add_watch(fd, in("other"), IN_ATTRIB);
  CHECK("a new watch has a new number", plain || (added > once && added > root));
  clean();
  return check_finish();
}
