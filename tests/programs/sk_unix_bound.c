/*
 * Unix sockets with names: bound to a path, to a relative path, to a path that is gone, to an abstract name; listening,
 * with connections accepted and still to be accepted; datagram sockets that others send to.
 */
#include "tree.h"
#include "words.h"
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct sockaddr_un address;
static socklen_t named(const char *format, ...) {
  va_list list;
  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  va_start(list, format);
  int n = vsnprintf(address.sun_path, sizeof(address.sun_path), format, list);
  va_end(list);
  if (n >= (int)sizeof(address.sun_path)) check_die("the path is too long");
  if (address.sun_path[0] != '@') return sizeof(address);
  address.sun_path[0] = 0;
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
}
static int bound(int type, socklen_t length) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(bind(fd, (struct sockaddr *)&address, length));
  return fd;
}
static int connected(int type, socklen_t length) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(connect(fd, (struct sockaddr *)&address, length));
  return fd;
}
static const char *name_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *)) {
  static char names[4][128];
  static int next;
  char *name = names[next++ & 3];
  struct sockaddr_un found = {0};
  socklen_t length = sizeof(found);
  if (get(fd, (struct sockaddr *)&found, &length) != 0) return strerror(errno);
  memset(name, 0, sizeof(names[0]));
  memcpy(name, found.sun_path, sizeof(found.sun_path));
  if (length > 2 && name[0] == 0) name[0] = '@';
  return name;
}
static uid_t peer_uid(int fd) {
  struct ucred who;
  socklen_t length = sizeof(who);
  MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length));
  return who.uid;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* a listener with a path: two connections accepted, one of them closed, two waiting */
  char path[4200];
  snprintf(path, sizeof(path), "%s/l", check_dir);
  int listener = bound(SOCK_STREAM, named("%s", path));
  MUST(chmod(path, 0620));
  MUST(chown(path, 12, 34));
  MUST(listen(listener, 5));
  MUST(setresuid(-1, 12, -1));
  int client = connected(SOCK_STREAM, named("%s", path));
  MUST(setresuid(-1, 0, -1));
  int server = (int)MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
  put(client, "to the server"), put(server, "to the client");
  int gone = connected(SOCK_STREAM, named("%s", path));
  int orphan = (int)MUST(accept(listener, NULL, NULL));
  put(gone, "last words"), close(gone);
  int waiting[2];
  for (int i = 0; i < 2; i++) waiting[i] = connected(SOCK_STREAM, named("%s", path));
  /* an abstract one, of packets, that a child accepts from */
  int abstract = bound(SOCK_SEQPACKET, named("@ckpt-test-%d", getpid()));
  MUST(listen(abstract, 1));
  /* a listener that is gone, its path too, but not its connection */
  int passing = bound(SOCK_STREAM, named("%s/p", check_dir));
  MUST(listen(passing, 1));
  int left = connected(SOCK_STREAM, named("%s/p", check_dir)), right = (int)MUST(accept(passing, NULL, NULL));
  close(passing), unlink(address.sun_path);
  put(left, "by way of what is gone");
  /* bound to a path that is gone, and another bound to the same path */
  int deleted = bound(SOCK_DGRAM, named("%s/d", check_dir));
  int to_deleted = connected(SOCK_DGRAM, named("%s/d", check_dir));
  unlink(address.sun_path);
  int again = bound(SOCK_DGRAM, named("%s/d", check_dir));
  put(to_deleted, "to what is deleted");
  /* datagrams: many senders to one, with and without names; a pair of named ones */
  int log = bound(SOCK_DGRAM, named("%s/log", check_dir));
  int sender = connected(SOCK_DGRAM, named("%s/log", check_dir));
  MUST(chdir(check_dir));
  int with_name = bound(SOCK_DGRAM, named("s"));
  MUST(chdir("/"));
  socklen_t length = named("%s/log", check_dir);
  put(sender, "without a name");
  MUST(sendto(with_name, "with a name", 11, 0, (struct sockaddr *)&address, length));
  int one = bound(SOCK_DGRAM, named("@ckpt-one-%d", getpid())), two = bound(SOCK_DGRAM, named("@ckpt-two-%d", getpid()));
  MUST(connect(one, (struct sockaddr *)&address, named("@ckpt-two-%d", getpid())));
  MUST(connect(two, (struct sockaddr *)&address, named("@ckpt-one-%d", getpid())));
  put(one, "to two");
  /* connected to one that is closed */
  int lost = bound(SOCK_DGRAM, named("@ckpt-lost-%d", getpid()));
  int to_lost = connected(SOCK_DGRAM, named("@ckpt-lost-%d", getpid()));
  close(lost);
  int unbound = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  pid_t root = getpid();
  pid_t child = tree_fork("child");
  if (child == 0) {
    int mine = connected(SOCK_SEQPACKET, named("@ckpt-test-%d", root));
    tree_settled();
    expect("from the root", mine, "for the child");
    put(mine, "thanks");
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  struct stat file = {0};
  CHECK_EQ("the path", 0, stat(path, &file));
  CHECK_EQ("its mode", S_IFSOCK | 0620, file.st_mode);
  CHECK_EQ("its owner", 12, file.st_uid);
  CHECK_EQ("its group", 34, file.st_gid);
  CHECK_STRING("name of the listener", path, name_of(listener, getsockname));
  CHECK_STRING("name of the accepted one", path, name_of(server, getsockname));
  CHECK_STRING("peer name of the client", path, name_of(client, getpeername));
  CHECK_STRING("name of the client", "", name_of(client, getsockname));
  CHECK_EQ("uid of the client", 12, (int)peer_uid(server));
  CHECK_EQ("uid of the listener", 0, (int)peer_uid(client));
  CHECK("nonblocking", fcntl(server, F_GETFL) & O_NONBLOCK);
  expect("client to server", server, "to the server"), expect("server to client", client, "to the client");
  expect("of a client that is gone", orphan, "last words"), expect("its end", orphan, "");
  for (int i = 0; i < 2; i++) {
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    CHECK_EQ("a connection waits", 1, poll(&ready, 1, 0));
    if (!ready.revents) break;
    int accepted = (int)MUST(accept(listener, NULL, NULL));
    put(waiting[i], i == 0 ? "the first" : "the second");
    expect("the one that waited", accepted, i == 0 ? "the first" : "the second");
  }
  struct pollfd none = {.fd = listener, .events = POLLIN};
  CHECK_EQ("no more connections", 0, poll(&none, 1, 0));
  int fresh = connected(SOCK_STREAM, named("%s", path)), accepted = (int)MUST(accept(listener, NULL, NULL));
  put(fresh, "new"), expect("a new connection", accepted, "new");
  int theirs = (int)MUST(accept(abstract, NULL, NULL));
  put(theirs, "for the child"), expect("from the child", theirs, "thanks");
  expect("of a listener that is gone", right, "by way of what is gone");
  snprintf(path, sizeof(path), "%s/p", check_dir);
  CHECK_STRING("its name", path, name_of(right, getsockname));
  CHECK_EQ("its path is gone", -1, access(path, F_OK));
  expect("deleted", deleted, "to what is deleted");
  put(to_deleted, "once more"), expect("deleted again", deleted, "once more");
  length = named("%s/d", check_dir);
  MUST(sendto(with_name, "the other", 9, 0, (struct sockaddr *)&address, length));
  expect("what has the path now", again, "the other");
  char got[64] = {0};
  struct sockaddr_un from = {0};
  length = sizeof(from);
  recvfrom(log, got, sizeof(got), MSG_DONTWAIT, (struct sockaddr *)&from, &length);
  CHECK_STRING("a datagram", "without a name", got);
  CHECK_EQ("of nobody", 0, from.sun_path[0]);
  memset(got, 0, sizeof(got)), length = sizeof(from);
  recvfrom(log, got, sizeof(got), MSG_DONTWAIT, (struct sockaddr *)&from, &length);
  CHECK_STRING("another datagram", "with a name", got);
  CHECK_STRING("of somebody", "s", from.sun_path);
  put(sender, "more"), expect("the sender goes on", log, "more");
  expect("between named ones", two, "to two");
  put(two, "answer"), expect("and back", one, "answer");
  CHECK_EQ("to one that is closed", -1, send(to_lost, "x", 1, MSG_NOSIGNAL));
  CHECK_EQ("error", ECONNREFUSED, errno);
  length = named("%s/l", check_dir);
  CHECK_EQ("what was never connected", 0, connect(unbound, (struct sockaddr *)&address, length));
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
