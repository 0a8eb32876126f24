/*
 * What becomes of inotify watches when something is lost. argv[2] is the kind:
 *   deleted   files and a directory that were removed, but are in use
 *   unread    events that nobody has read; what is read afterwards is written to `seen`
 *   group     the same of a fanotify group, which is told nothing
 *   outside   a deleted file that only another process has open when there is `opened`
 *   moves     one file, which others rename, replace or remove meanwhile; what comes of it is written to `seen`
 */
#include "tree.h"
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static const char *in(const char *name) {
  static char paths[8][4200];
  static int next;
  char *path = paths[next++ & 7];
  snprintf(path, sizeof(paths[0]), "%s/%s", check_dir, name);
  return path;
}

static int make(const char *name) { return (int)MUST(open(in(name), O_CREAT | O_RDWR | O_CLOEXEC, 0644)); }

/** All that can be read, as lines "wd mask name". */
static const char *events(int fd) {
  static char text[65536];
  char bytes[4096] __attribute__((aligned(8)));
  text[0] = 0;
  for (ssize_t n; (n = read(fd, bytes, sizeof(bytes))) > 0;) {
    const struct inotify_event *event;
    for (char *at = bytes; at < bytes + n; at += sizeof(*event) + event->len) {
      event = (void *)at;
      size_t used = strlen(text);
      snprintf(text + used, sizeof(text) - used, "%d %x %s\n", event->wd, event->mask, event->len ? event->name : "");
    }
  }
  return text;
}

static int fd;

static void deleted(void) {
  int file = make("file"), unused = make("unused");
  MUST(mkdir(in("dir"), 0755));
  int dir = (int)MUST(open(in("dir"), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int of_file = (int)MUST(inotify_add_watch(fd, in("file"), IN_ALL_EVENTS));
  int of_dir = (int)MUST(inotify_add_watch(fd, in("dir"), IN_ALL_EVENTS));
  MUST(unlink(in("file")));
  MUST(rmdir(in("dir")));
  close(unused);
  CHECK_STRING("events of the removal", check_name("%d %x \n", of_file, IN_ATTRIB), events(fd));
  check_ready();
  CHECK_STRING("quiet", "", events(fd));
  MUST(write(file, "x", 1));
  CHECK_STRING("the file tells", check_name("%d %x \n", of_file, IN_MODIFY), events(fd));
  MUST(fchmod(dir, 0700));
  CHECK_STRING("the directory tells", check_name("%d %x \n", of_dir, IN_ATTRIB | IN_ISDIR), events(fd));
  MUST(close(file));
  CHECK_STRING("the end of the file",
               check_name("%d %x \n%d %x \n%d %x \n", of_file, IN_CLOSE_WRITE, of_file, IN_DELETE_SELF, of_file, IN_IGNORED),
               events(fd));
}

static void group(void) {
  int one = (int)MUST(fanotify_init(FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY));
  struct fanotify_event_metadata event;
  MUST(fanotify_mark(one, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, in("file")));
  int file = make("file");
  MUST(write(file, "x", 1));
  check_ready();
  /* those of before are there in a program that was left running, and gone in a restored one */
  while (read(one, &event, sizeof(event)) > 0) close(event.fd);
  MUST(write(file, "x", 1));
  CHECK_EQ("an event of later", (long)sizeof(event), (long)read(one, &event, sizeof(event)));
  CHECK_EQ("what it is", FAN_MODIFY, event.mask);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const char *kind = argc > 2 ? argv[2] : "";
  fd = (int)MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!strcmp(kind, "deleted")) {
    deleted();
    return check_finish();
  }
  close(make("file"));
  if (!strcmp(kind, "group")) {
    group();
    return check_finish();
  }
  int watch = (int)MUST(inotify_add_watch(fd, in("file"), IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF));
  if (!strcmp(kind, "unread")) {
    MUST(inotify_add_watch(fd, check_dir, IN_CREATE));
    MUST(chmod(in("file"), 0600));
    close(make("other"));
    MUST(inotify_rm_watch(fd, watch + 1));
  } else if (!strcmp(kind, "outside")) {
    while (access(in("opened"), F_OK) != 0) check_sleep_ms(1);
    MUST(unlink(in("file")));
    events(fd);
  }
  check_ready();
  if (!strcmp(kind, "moves")) {
    chmod(in("file"), 0600);
    chmod(in("elsewhere"), 0640);
  }
  const char *text = events(fd);
  check_write_file("seen", text, strlen(text));
  if (!strcmp(kind, "unread")) {
    MUST(chmod(in("file"), 0640));
    CHECK_STRING("afterwards", check_name("%d %x \n", watch, IN_ATTRIB), events(fd));
  }
  return check_finish();
}
