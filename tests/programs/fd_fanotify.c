/*
 * fanotify groups: marks on files, mounts and file systems, masks and what is ignored, the kind of reports, one that a child
 * shares. Argument: the directory to do it in; the work directory unless given. Or `plain`: only what CRIU restores
 * as well.
 */
#include "tree.h"
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
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

/** The mask of the next event; with `name` also the name it tells, or the last one of where its descriptor leads. */
static long next(int fd, char *name) {
  static union {
    struct fanotify_event_metadata head;
    char bytes[1024];
  } event;
  if (name) name[0] = 0;
  // Exactly one: as long a buffer as the event needs.
  ssize_t n = -1;
  for (size_t room = sizeof(event.head); room <= sizeof(event); room += 4) {
    n = read(fd, &event, room);
    if (n >= 0 || errno != EINVAL) break;
  }
  if (n < 0) return -errno;
  if (event.head.fd >= 0) {
    char link[64], path[4400] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", event.head.fd);
    MUST(readlink(link, path, sizeof(path) - 1));
    if (name) strcpy(name, strrchr(path, '/') + 1);
    close(event.head.fd);
  } else if (name && n > (ssize_t)sizeof(event.head)) {
    struct fanotify_event_info_fid *info = (void *)(event.bytes + event.head.metadata_len);
    struct file_handle *handle = (void *)info->handle;
    if (info->hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME)
      strcpy(name, (char *)handle->f_handle + handle->handle_bytes);
  }
  return (long)event.head.mask;
}

static void expect(const char *what, int fd, long mask, const char *name) {
  char got[1024];
  CHECK_EQ("%s: mask", mask, next(fd, got), what);
  check_string(what, name, got);
}

static void touch(const char *name) { MUST(close((int)MUST(open(in(name), O_RDONLY | O_CLOEXEC)))); }

static void clean(void) {
  const char *names[] = {"dir/child", "dir/new", "dir", "file", "other", "moved", "renamed"};
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
    if (unlink(in(names[i])) != 0) rmdir(in(names[i]));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain = argc > 2 && !strcmp(argv[2], "plain");
  bool other = argc > 2 && !plain;
  snprintf(place, sizeof(place), "%s/watched", other ? argv[2] : check_dir);
  mkdir(place, 0755);
  clean();
  MUST(mkdir(in("dir"), 0755));
  make("file"), make("other"), make("dir/child"), make("renamed");

  int fd = (int)MUST(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC | FAN_UNLIMITED_MARKS, O_RDONLY | O_CLOEXEC));
  MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, in("file")));
  MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_CLOSE_NOWRITE, AT_FDCWD, in("renamed")));
  MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD | FAN_ONDIR, AT_FDCWD, in("dir")));
  MUST(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN, AT_FDCWD,
                     in("dir/child")));
  MUST(rename(in("renamed"), in("moved")));
  // Names instead of descriptors.
  int names = (int)MUST(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME | FAN_NONBLOCK, O_RDWR | O_LARGEFILE));
  MUST(fanotify_mark(names, FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_CREATE | FAN_DELETE | FAN_ONDIR, AT_FDCWD, in("dir")));
  if (!plain) MUST(fanotify_mark(names, FAN_MARK_ADD | FAN_MARK_IGNORE_SURV, FAN_DELETE, AT_FDCWD, in("dir")));
  // A mount that nobody else uses.
  int mounts = (int)MUST(fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK, O_RDONLY));
  if (other) MUST(fanotify_mark(mounts, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, argv[2]));
  if (other && fanotify_mark(mounts, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CLOSE_WRITE, AT_FDCWD, argv[2]) != 0)
    check_note("no mark on this file system: %s", strerror(errno));
  int gate[2];
  MUST(pipe2(gate, O_CLOEXEC));
  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    char go;
    CHECK_EQ("told to go on", 1, read(gate[0], &go, 1));
    touch("file");
    tree_report(0);
  }
  tree_await("child");
  CHECK_EQ("nothing before", 0, pending(fd) + pending(names) + pending(mounts));
  check_ready();

  CHECK_EQ("nothing came of the restore", 0, pending(fd));
  CHECK_EQ("nor with names", 0, pending(names));
  CHECK_EQ("nor of the mount", 0, pending(mounts));
  MUST(write(gate[1], "", 1));
  tree_collect("child");
  tree_wait(child, 0);
  expect("what a child opens", fd, FAN_OPEN, "file");
  touch("dir/child");
  CHECK_EQ("ignored", -EAGAIN, next(fd, NULL));
  make("dir/new");
  expect("below the directory", fd, FAN_OPEN, "new");
  touch("moved");
  expect("the renamed file", fd, FAN_CLOSE_NOWRITE, "moved");
  CHECK_EQ("no more", -EAGAIN, next(fd, NULL));
  expect("with its name", names, FAN_CREATE, "new");
  MUST(unlink(in("dir/new")));
  CHECK_EQ("ignored there", plain ? FAN_DELETE : -EAGAIN, next(names, NULL));
  if (other) {
    CHECK("the mount tells", pending(mounts) > 0);
    while (next(mounts, NULL) > 0) continue;
    touch("other");
    expect("the mount", mounts, FAN_OPEN, "other");
  }
  CHECK_EQ("flags", O_NONBLOCK | O_RDWR, fcntl(fd, F_GETFL) & ~O_LARGEFILE);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(fd, F_GETFD));
  CHECK_EQ("not close-on-exec", 0, fcntl(names, F_GETFD));
  clean();
  return check_finish();
}
