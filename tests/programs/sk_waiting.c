/*
 * Unix connections that wait to be accepted: with bytes that were sent already, many and few; half shut; of makers that
 * have closed their end, with and without last words; of another user; packets, also empty ones.
 */
#include "check.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LARGE 150000
static char large[LARGE], got[LARGE + 1];
static struct sockaddr_un stream, packets;

static int listening(int type, struct sockaddr_un *address, const char *name) {
  address->sun_family = AF_UNIX;
  /* an abstract name: any user may connect */
  snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "ckpt-%s-%d", name, getpid());
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(bind(fd, (struct sockaddr *)address, sizeof(*address)));
  MUST(listen(fd, 9));
  return fd;
}
static int connected(int type, const struct sockaddr_un *to) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(connect(fd, (const struct sockaddr *)to, sizeof(*to)));
  return fd;
}
static void put(int fd, const char *bytes, size_t length) { CHECK_EQ("sent", (long)length, (long)send(fd, bytes, length, MSG_NOSIGNAL)); }
static int next(const char *name, int listener) {
  struct pollfd ready = {.fd = listener, .events = POLLIN};
  CHECK_EQ("%s: waits", 1, poll(&ready, 1, 0), name);
  return ready.revents ? (int)MUST(accept(listener, NULL, NULL)) : -1;
}
static void expect(const char *name, int fd, const char *bytes, size_t length) {
  CHECK_EQ("%s: length", (long)length, (long)recv(fd, got, length ? length : 1, MSG_DONTWAIT | (length > 1 ? MSG_WAITALL : 0)), name);
  CHECK_BYTES("%s", bytes, got, length, name);
}
static void expect_end(const char *name, int fd) { CHECK_EQ("%s: end", 0, (long)recv(fd, got, 1, MSG_DONTWAIT), name); }
static void expect_nothing(const char *name, int fd) {
  CHECK_EQ("%s: nothing more", -1, (long)recv(fd, got, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: error", EAGAIN, errno, name);
}
static uid_t maker(int fd) {
  struct ucred who;
  socklen_t length = sizeof(who);
  MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length));
  return who.uid;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (int i = 0; i < LARGE; i++) large[i] = (char)(i * 11 + i / 253);
  int listener = listening(SOCK_STREAM, &stream, "s"), packet_listener = listening(SOCK_SEQPACKET, &packets, "p");
  int quiet = connected(SOCK_STREAM, &stream);
  int talker = connected(SOCK_STREAM, &stream);
  put(talker, "hello, ", 7), put(talker, large, LARGE);
  MUST(setresuid(-1, 12, -1));
  int gone = connected(SOCK_STREAM, &stream);
  MUST(setresuid(-1, 0, -1));
  put(gone, "last words", 10), close(gone);
  int half = connected(SOCK_STREAM, &stream);
  put(half, "all", 3), MUST(shutdown(half, SHUT_WR));
  close(connected(SOCK_STREAM, &stream));
  int writer = connected(SOCK_SEQPACKET, &packets);
  put(writer, "one", 3), put(writer, large, 40000), put(writer, "", 0), put(writer, "two", 3);

  check_ready();

  int end = next("the quiet one", listener);
  expect_nothing("the quiet one", end);
  put(quiet, "now", 3), expect("the quiet one", end, "now", 3);
  end = next("the talker", listener);
  expect("the talker", end, "hello, ", 7), expect("the talker's many", end, large, LARGE), expect_nothing("the talker", end);
  put(end, "answer", 6), expect("the answer", talker, "answer", 6);
  end = next("the one that is gone", listener);
  CHECK_EQ("its user", 12, (int)maker(end));
  expect("its last words", end, "last words", 10), expect_end("the one that is gone", end);
  end = next("the half shut one", listener);
  expect("the half shut one", end, "all", 3), expect_end("the half shut one", end);
  put(end, "more", 4), expect("the other half", half, "more", 4);
  expect_end("the silent one", next("the silent one", listener));
  end = next("packets", packet_listener);
  expect("the first packet", end, "one", 3), expect("a large packet", end, large, 40000);
  expect("an empty packet", end, "", 0), expect("the last packet", end, "two", 3), expect_nothing("packets", end);
  struct pollfd none = {.fd = listener, .events = POLLIN};
  CHECK_EQ("no more connections", 0, poll(&none, 1, 0));
  return check_finish();
}
