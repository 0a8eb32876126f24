/*
 * Unix sockets whose paths are gone for good: their directory was removed, or something else has the name now; and some
 * that were renamed. They were in a directory of their own in argv[2], or in the work directory.
 */
#include "check.h"
#include "words.h"
#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char place[4200];

static struct sockaddr_un in_place(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", place, name);
  if (n >= (int)sizeof(address.sun_path)) check_die("the path is too long");
  return address;
}
static int bound(int type, struct sockaddr_un address) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  if (type != SOCK_DGRAM) MUST(listen(fd, 4));
  return fd;
}
static int connected(int type, struct sockaddr_un address) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(connect(fd, (struct sockaddr *)&address, sizeof(address)));
  return fd;
}
static void expect_name(const char *name, struct sockaddr_un address, int fd,
                        int (*get)(int, struct sockaddr *, socklen_t *)) {
  struct sockaddr_un found = {0};
  socklen_t length = sizeof(found);
  CHECK_EQ("%s: its name", 0, get(fd, (struct sockaddr *)&found, &length), name);
  CHECK_STRING(name, address.sun_path, found.sun_path);
}
static int entries(const char *path) {
  int count = 0;
  DIR *directory = opendir(path);
  if (!directory) check_die("opendir: %s", strerror(errno));
  while (readdir(directory)) count++;
  closedir(directory);
  return count;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  snprintf(place, sizeof(place), "%s/gone", argc > 2 ? argv[2] : check_dir);
  MUST(mkdir(place, 0755));
  char path[4300];
  /* a listener in a directory that is gone: one connection accepted, one waiting */
  snprintf(path, sizeof(path), "%s/a", place), MUST(mkdir(path, 0700));
  snprintf(path, sizeof(path), "%s/a/b", place), MUST(mkdir(path, 0700));
  struct sockaddr_un deep = in_place("a/b/listener");
  int listener = bound(SOCK_STREAM, deep);
  int client = connected(SOCK_STREAM, deep);
  int server = (int)MUST(accept(listener, NULL, NULL));
  put(client, "to the server");
  int waiting = connected(SOCK_STREAM, deep);
  /* a relative one there */
  MUST(chdir(path));
  struct sockaddr_un relative = {.sun_family = AF_UNIX, .sun_path = "./relative"};
  int near = bound(SOCK_DGRAM, relative);
  int to_near = connected(SOCK_DGRAM, relative);
  put(to_near, "to the relative one");
  MUST(unlink("relative"));
  MUST(chdir("/"));
  /* a connection whose listener is closed */
  struct sockaddr_un passing = in_place("a/b/passing");
  int closed = bound(SOCK_SEQPACKET, passing);
  int left = connected(SOCK_SEQPACKET, passing), right = (int)MUST(accept(closed, NULL, NULL));
  MUST(close(closed));
  MUST(unlink(passing.sun_path)), MUST(unlink(deep.sun_path));
  MUST(rmdir(path));
  snprintf(path, sizeof(path), "%s/a", place), MUST(rmdir(path));
  /* names that a file and a directory have now */
  struct sockaddr_un file = in_place("file"), directory = in_place("directory");
  int log = bound(SOCK_DGRAM, file), to_log = connected(SOCK_DGRAM, file);
  put(to_log, "to what was a socket");
  MUST(unlink(file.sun_path));
  int taker = (int)MUST(open(file.sun_path, O_WRONLY | O_CREAT | O_EXCL, 0640));
  if (write(taker, "mine", 4) != 4) check_die("write");
  MUST(close(taker));
  int other = bound(SOCK_STREAM, directory);
  MUST(unlink(directory.sun_path)), MUST(mkdir(directory.sun_path, 0750));
  /* one that was renamed, whose name another has; a relative one that was renamed, with a second name */
  snprintf(path, sizeof(path), "%s/live", place), MUST(mkdir(path, 0700));
  struct sockaddr_un renamed = in_place("live/old"), elsewhere = in_place("live/new"), second = in_place("live/second");
  int first = bound(SOCK_STREAM, renamed);
  int to_first = connected(SOCK_STREAM, renamed), by_first = (int)MUST(accept(first, NULL, NULL));
  MUST(chmod(renamed.sun_path, 0620));
  MUST(rename(renamed.sun_path, elsewhere.sun_path));
  int newcomer = bound(SOCK_STREAM, renamed);
  struct sockaddr_un below = {.sun_family = AF_UNIX, .sun_path = "sub/../sub/moved"};
  MUST(chdir(path)), MUST(mkdir("sub", 0700));
  int moved = bound(SOCK_DGRAM, below), to_moved = connected(SOCK_DGRAM, below);
  MUST(rename("sub/moved", "moved")), MUST(link("moved", "second")), MUST(rmdir("sub"));
  put(to_moved, "to what has moved");
  MUST(chdir("/"));
  check_ready();
  char now[8] = "";
  struct stat status = {0};
  int again = (int)MUST(open(file.sun_path, O_RDONLY));
  CHECK_EQ("what has the name", 4, read(again, now, sizeof(now)));
  CHECK_STRING("what has the name", "mine", now);
  CHECK_EQ("names there", 5, entries(place));
  CHECK_EQ("names of those that live", 6, entries(path));
  expect_name("the listener", deep, listener, getsockname);
  expect_name("the client's peer", deep, client, getpeername);
  expect_name("the accepted one", deep, server, getsockname);
  expect_name("the relative one", relative, near, getsockname);
  expect_name("what was accepted before", passing, right, getsockname);
  expect_name("its peer", passing, left, getpeername);
  expect_name("the log", file, log, getsockname);
  expect_name("the other", directory, other, getsockname);
  expect("client to server", server, "to the server");
  put(server, "to the client"), expect("server to client", client, "to the client");
  int accepted = (int)MUST(accept(listener, NULL, NULL));
  put(waiting, "late"), expect("one that waited", accepted, "late");
  expect("datagram", near, "to the relative one");
  put(to_near, "again"), expect("datagram", near, "again");
  put(left, "left"), expect("left to right", right, "left");
  expect("log", log, "to what was a socket");
  put(to_log, "more"), expect("log", log, "more");
  expect_name("what was renamed", renamed, first, getsockname);
  expect_name("what it accepted", renamed, by_first, getsockname);
  put(to_first, "before"), expect("before", by_first, "before");
  CHECK_EQ("what was renamed", 0, stat(elsewhere.sun_path, &status));
  CHECK_EQ("its mode", S_IFSOCK | 0620, status.st_mode);
  int to_renamed = connected(SOCK_STREAM, elsewhere), by_renamed = (int)MUST(accept(first, NULL, NULL));
  put(to_renamed, "renamed"), expect("by its new name", by_renamed, "renamed");
  int to_newcomer = connected(SOCK_STREAM, renamed), by_newcomer = (int)MUST(accept(newcomer, NULL, NULL));
  put(to_newcomer, "new"), expect("the newcomer", by_newcomer, "new");
  expect_name("a relative one", below, moved, getsockname);
  expect("moved", moved, "to what has moved");
  int to_second = connected(SOCK_DGRAM, second);
  put(to_second, "by the second"), expect("by its second name", moved, "by the second");
  CHECK_EQ("its second name", 0, stat(second.sun_path, &status));
  CHECK_EQ("names", 2, (int)status.st_nlink);
  return check_finish();
}
