/*
 * Unix sockets that are bound in a mount namespace of the program's own, and in one of its child's: by a path with a
 * symbolic link, by one that is gone, by one that another file has now, and by names that only one of the two has. Run
 * in a mount namespace of its own.
 */
#include "tree.h"
#include "words.h"
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct sockaddr_un named(const char *format, ...) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  va_list list;
  va_start(list, format);
  vsnprintf(address.sun_path, sizeof(address.sun_path), format, list);
  va_end(list);
  return address;
}
static int bound(int type, struct sockaddr_un address) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  if (type == SOCK_STREAM) MUST(listen(fd, 4));
  return fd;
}
static int connected(int type, struct sockaddr_un address) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(connect(fd, (struct sockaddr *)&address, sizeof(address)));
  return fd;
}
static void expect_name(const char *name, int fd) {
  struct sockaddr_un found = {0};
  socklen_t length = sizeof(found);
  MUST(getsockname(fd, (struct sockaddr *)&found, &length));
  CHECK_STRING("a name", name, found.sun_path);
}
static void expect_socket(const char *format, ...) {
  char path[128];
  struct stat status = {0};
  va_list list;
  va_start(list, format);
  vsnprintf(path, sizeof(path), format, list);
  va_end(list);
  CHECK_EQ("%s", 0, lstat(path, &status), path);
  CHECK("%s is a socket", S_ISSOCK(status.st_mode), path);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("top", "/mnt", "tmpfs", 0, NULL));
  MUST(mount(NULL, "/mnt", NULL, MS_PRIVATE, NULL));
  MUST(mkdir("/mnt/run", 0755));
  MUST(mkdir("/mnt/private", 0755));
  MUST(mount("parent", "/mnt/private", "tmpfs", 0, NULL));
  MUST(symlink("/mnt/run", "/mnt/link"));
  int listener = bound(SOCK_STREAM, named("/mnt/link/listener"));
  int client = connected(SOCK_STREAM, named("/mnt/run/listener")), server = (int)MUST(accept(listener, NULL, NULL));
  put(client, "to the server");
  int gone = bound(SOCK_DGRAM, named("/mnt/run/gone")), to_gone = connected(SOCK_DGRAM, named("/mnt/run/gone"));
  MUST(unlink("/mnt/run/gone"));
  put(to_gone, "to what is gone");
  int moved = bound(SOCK_DGRAM, named("/mnt/run/moved"));
  MUST(rename("/mnt/run/moved", "/mnt/run/new"));
  int newcomer = bound(SOCK_DGRAM, named("/mnt/run/moved"));
  /* sockets of both that the child binds where its parent sees nothing */
  int far = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), to = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
  pid_t child = tree_fork("child");
  if (child == 0) {
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
    MUST(unshare(CLONE_NEWNS));
    MUST(mount("child", "/mnt/private", "tmpfs", 0, NULL));
    struct sockaddr_un name = named("/mnt/private/far");
    MUST(bind(far, (struct sockaddr *)&name, sizeof(name)));
    MUST(listen(far, 3));
    name = named("/mnt/private/to");
    MUST(bind(to, (struct sockaddr *)&name, sizeof(name)));
    tree_settled();
    expect_socket("/mnt/private/far");
    CHECK("the name of the parent's", access("/mnt/private/from", F_OK) != 0);
    tree_leave_report();
    for (;;) pause();
  }
  tree_await("child");
  int near = connected(SOCK_STREAM, named("/proc/%d/root/mnt/private/far", child));
  int accepted = (int)MUST(accept(far, NULL, NULL));
  put(near, "to the child's");
  int from = bound(SOCK_DGRAM, named("/mnt/private/from"));
  struct sockaddr_un name = named("/proc/%d/root/mnt/private/to", child);
  MUST(connect(from, (struct sockaddr *)&name, sizeof(name)));
  put(from, "a datagram");

  check_ready();

  expect_name("/mnt/link/listener", listener);
  expect_socket("/mnt/run/listener");
  expect("the server", server, "to the server");
  int late = connected(SOCK_STREAM, named("/mnt/run/listener")), other = (int)MUST(accept(listener, NULL, NULL));
  put(late, "late"), expect("a new one", other, "late");
  expect_name("/mnt/run/gone", gone);
  CHECK("it is gone", access("/mnt/run/gone", F_OK) != 0);
  expect("what is gone", gone, "to what is gone");
  expect_name("/mnt/run/moved", moved);
  int to_moved = connected(SOCK_DGRAM, named("/mnt/run/new")), to_newcomer = connected(SOCK_DGRAM, named("/mnt/run/moved"));
  put(to_moved, "moved"), expect("what has moved", moved, "moved");
  put(to_newcomer, "new"), expect("the newcomer", newcomer, "new");
  expect_name("/mnt/private/far", far);
  expect_socket("/proc/%d/root/mnt/private/far", child);
  expect_socket("/proc/%d/root/mnt/private/to", child);
  expect_socket("/mnt/private/from");
  CHECK("the name of the child's", access("/mnt/private/far", F_OK) != 0);
  expect("the child's", accepted, "to the child's");
  expect("a datagram", to, "a datagram");
  put(from, "another"), expect("another", to, "another");
  tree_collect("child");
  tree_end(child);
  return check_finish();
}
