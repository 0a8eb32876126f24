/*
 * TCP connections that wait to be accepted: silent, with few bytes and with more than fit, half shut, of a child, of IPv6;
 * they are accepted in their order, and nothing is lost or twice. The port of the silent one is in the file "port".
 */
#include "tree.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define LARGE 3000000
static char large[LARGE], got[LARGE];

union address {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
};
static union address name_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *)) {
  union address found;
  memset(&found, 0, sizeof(found));
  socklen_t size = sizeof(found);
  MUST(get(fd, &found.any, &size));
  return found;
}
static int listening(int family) {
  int fd = (int)MUST(socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0));
  union address address = {.any = {.sa_family = (sa_family_t)family}};
  if (family == AF_INET) address.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else address.six.sin6_addr = in6addr_loopback;
  const int one = 1;
  MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
  MUST(bind(fd, &address.any, sizeof(address)));
  MUST(listen(fd, 5));
  return fd;
}
static int connected(int listener) {
  union address to = name_of(listener, getsockname);
  int fd = (int)MUST(socket(to.any.sa_family, SOCK_STREAM, 0));
  MUST(connect(fd, &to.any, sizeof(to)));
  return fd;
}
static int next(const char *name, int listener, uint16_t from) {
  struct pollfd ready = {.fd = listener, .events = POLLIN};
  CHECK_EQ("%s: waits", 1, poll(&ready, 1, 5000), name);
  int fd = accept(listener, NULL, NULL);
  if (fd < 0) check_die("%s: accept: %s", name, strerror(errno));
  union address peer = name_of(fd, getpeername);
  if (from) CHECK_EQ("%s: its port", from, peer.four.sin_port, name);
  return fd;
}
static void expect(const char *name, int fd, const char *bytes, size_t length) {
  CHECK_EQ("%s: length", (long)length, (long)recv(fd, got, length, MSG_WAITALL), name);
  CHECK_BYTES("%s", bytes, got, length, name);
}
static void expect_end(const char *name, int fd) {
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  poll(&ready, 1, 5000);
  CHECK_EQ("%s: end", 0, (long)recv(fd, got, 1, MSG_DONTWAIT), name);
}
static void expect_nothing(const char *name, int fd) {
  CHECK_EQ("%s: nothing more", -1, (long)recv(fd, got, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: error", EAGAIN, errno, name);
}
/** Nothing is left of connections when the program ends: it may be restored once more. */
static void end_at_once(void) {
  const struct linger none = {.l_onoff = 1};
  for (int fd = 3; fd < 64; fd++) setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}
static uint16_t port(int fd) { return name_of(fd, getsockname).four.sin_port; }

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (size_t i = 0; i < LARGE; i++) large[i] = (char)(i * 13 + i / 241);
  int listener = listening(AF_INET), listener6 = listening(AF_INET6);
  int silent = connected(listener);
  char text[8];
  check_write_file("port", text, (size_t)snprintf(text, sizeof(text), "%d\n", ntohs(port(silent))));
  int few = connected(listener);
  MUST(send(few, "hello", 5, 0));
  int many = connected(listener);
  ssize_t sent = 0;
  for (ssize_t n; sent < LARGE && (n = send(many, large + sent, (size_t)(LARGE - sent), MSG_DONTWAIT)) > 0;) sent += n;
  if (sent == 0) check_die("nothing is sent");
  int half = connected(listener);
  MUST(send(half, "all", 3, 0)), MUST(shutdown(half, SHUT_WR));
  pid_t child = tree_fork("child");
  if (child == 0) {
    close(silent), close(few), close(many), close(half);
    int own = connected(listener);
    close(listener), close(listener6);
    MUST(send(own, "of the child", 12, 0));
    tree_settled();
    expect("the answer to the child", own, "answer", 6);
    end_at_once();
    tree_report(0);
  }
  tree_await("child");
  int six = connected(listener6);
  MUST(send(six, "of IPv6", 7, 0));

  check_ready();

  int end = next("the silent one", listener, port(silent));
  expect_nothing("the silent one", end);
  MUST(send(silent, "now", 3, 0)), expect("the silent one", end, "now", 3);
  end = next("the one with few bytes", listener, port(few));
  expect("few bytes", end, "hello", 5), expect_nothing("few bytes", end);
  MUST(send(end, "answer", 6, 0)), expect("the answer", few, "answer", 6);
  end = next("the one with many bytes", listener, port(many));
  expect("many bytes", end, large, (size_t)sent), expect_nothing("many bytes", end);
  MUST(send(many, "more", 4, 0)), expect("more bytes", end, "more", 4);
  end = next("the half shut one", listener, port(half));
  expect("the half shut one", end, "all", 3), expect_end("the half shut one", end);
  MUST(send(end, "back", 4, 0)), expect("the other half", half, "back", 4);
  end = next("that of the child", listener, 0);
  expect("that of the child", end, "of the child", 12), MUST(send(end, "answer", 6, 0));
  end = next("that of IPv6", listener6, port(six));
  expect("that of IPv6", end, "of IPv6", 7);
  CHECK_EQ("no more", -1, accept(listener, NULL, NULL));
  tree_collect("child");
  tree_wait(child, 0);
  end_at_once();
  return check_finish();
}
