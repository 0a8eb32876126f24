/*
 * Unix sockets that are connected to each other: pairs of all types with what nobody has read, shut and closed ends,
 * credentials, options; ends in a child and in the parent.
 */
#include "tree.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

/** SO_PASSPIDFD, Linux 6.5 */
#define PASSPIDFD 76

static int stream[2], dgram[2], packets[2], half[2], closed[2], reset[2], credentials[2], options[2], shared[2], big[2];
static unsigned char large[300000];

static void put(int fd, const char *text) {
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("write: %s", strerror(errno));
}
/** One recv must give exactly this. */
static void expect(const char *name, int fd, const char *text) {
  char got[256] = {0};
  ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);
  CHECK_EQ("%s: length", (long)strlen(text), (long)n, name);
  CHECK_STRING(name, text, got);
}
static void expect_nothing(const char *name, int fd) {
  char byte;
  CHECK_EQ("%s: nothing more", -1, recv(fd, &byte, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: error", EAGAIN, errno, name);
}
static long option(int fd, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  MUST(getsockopt(fd, SOL_SOCKET, name, &value, &length));
  return value;
}
static struct ucred peer(int fd) {
  struct ucred who;
  socklen_t length = sizeof(who);
  MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length));
  return who;
}
static void expect_from(const char *name, int fd, const char *text, pid_t pid, uid_t uid) {
  char got[64] = {0}, room[CMSG_SPACE(sizeof(struct ucred))];
  struct iovec io = {got, sizeof(got)};
  struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
  CHECK_EQ("%s: length", (long)strlen(text), (long)recvmsg(fd, &message, MSG_DONTWAIT), name);
  CHECK_STRING(name, text, got);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  CHECK("%s: has credentials", header && header->cmsg_type == SCM_CREDENTIALS, name);
  if (!header) return;
  struct ucred *who = (struct ucred *)CMSG_DATA(header);
  CHECK_EQ("%s: pid", pid, who->pid, name);
  CHECK_EQ("%s: uid", uid, who->uid, name);
}
static void put_as(int fd, const char *text, uid_t uid) {
  char room[CMSG_SPACE(sizeof(struct ucred))] = {0};
  struct iovec io = {(void *)text, strlen(text)};
  struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_CREDENTIALS, header->cmsg_len = CMSG_LEN(sizeof(struct ucred));
  *(struct ucred *)CMSG_DATA(header) = (struct ucred){getpid(), uid, uid};
  MUST(sendmsg(fd, &message, 0));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
  put(stream[0], "one "), put(stream[0], "two"), put(stream[1], "back");
  MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, dgram));
  put(dgram[0], "first"), put(dgram[0], "second one"), MUST(send(dgram[0], "", 0, 0)), put(dgram[0], "third");
  MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, packets));
  put(packets[1], "a packet"), put(packets[1], "b");
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
  put(half[0], "before the end"), put(half[1], "still open");
  MUST(shutdown(half[0], SHUT_WR));
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, closed));
  put(closed[1], "last words"), close(closed[1]);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, reset));
  put(reset[0], "unread"), put(reset[1], "but this"), close(reset[1]);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, credentials));
  int on = 1;
  MUST(setsockopt(credentials[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
  put_as(credentials[0], "of root", 0), put_as(credentials[0], "of 12", 12), put_as(credentials[0], "of root again", 0);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, options));
  int size = 30000, offset = 3, low = 5;
  MUST(setsockopt(options[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
  MUST(setsockopt(options[0], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
  MUST(setsockopt(options[0], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)));
  MUST(setsockopt(options[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low)));
  MUST(setsockopt(options[0], SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)));
  bool has_pidfd = setsockopt(options[0], SOL_SOCKET, PASSPIDFD, &on, sizeof(on)) == 0;
  if (!has_pidfd) check_note("no SO_PASSPIDFD: %s", strerror(errno));
  struct timeval time = {3, 500000};
  MUST(setsockopt(options[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
  MUST(fchown(options[1], 12, 34));
  MUST(fcntl(options[1], F_SETFL, O_NONBLOCK));
  long sizes[2] = {option(options[0], SO_SNDBUF), option(options[1], SO_SNDBUF)};
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, big));
  size = 1 << 20;
  MUST(setsockopt(big[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)));
  check_fill(large, sizeof(large), 7);
  MUST(write(big[0], large, sizeof(large)));
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, shared));
  pid_t root = getpid();
  pid_t child = tree_fork("child");
  if (child == 0) {
    close(shared[0]);
    put(shared[1], "from the child;");
    /* a pair that it makes itself */
    int own[2];
    MUST(setresuid(-1, 12, -1));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, own));
    MUST(setresuid(-1, 0, -1));
    tree_settled();
    CHECK_EQ("its own pair: pid", getpid(), peer(own[0]).pid);
    CHECK_EQ("its own pair: uid", 12, (int)peer(own[1]).uid);
    CHECK_EQ("the pair of its parent: pid", root, peer(shared[1]).pid);
    char got[64] = {0};
    struct pollfd ready = {.fd = shared[1], .events = POLLIN};
    poll(&ready, 1, 10000);
    MUST(recv(shared[1], got, sizeof(got) - 1, MSG_DONTWAIT));
    CHECK_STRING("from the root", "to the child", got);
    put(shared[1], "an answer");
    tree_report(0);
  }
  tree_await("child");
  close(shared[1]);
  check_ready();
  expect("stream", stream[1], "one two"), expect_nothing("stream", stream[1]);
  expect("stream back", stream[0], "back");
  put(stream[0], "more"), expect("stream again", stream[1], "more");
  expect("dgram 1", dgram[1], "first"), expect("dgram 2", dgram[1], "second one"), expect("dgram 3", dgram[1], "");
  expect("dgram 4", dgram[1], "third"), expect_nothing("dgram", dgram[1]);
  CHECK("dgram is nonblocking", fcntl(dgram[0], F_GETFL) & O_NONBLOCK);
  expect("seqpacket 1", packets[0], "a packet"), expect("seqpacket 2", packets[0], "b"), expect_nothing("seqpacket", packets[0]);
  CHECK_EQ("seqpacket close-on-exec", FD_CLOEXEC, fcntl(packets[1], F_GETFD));
  expect("half", half[1], "before the end"), expect("the end", half[1], "");
  expect("the other half", half[0], "still open");
  put(half[1], "go on"), expect("the other half goes on", half[0], "go on");
  CHECK_EQ("a shut end", -1, send(half[0], "x", 1, MSG_NOSIGNAL));
  CHECK_EQ("a shut end: error", EPIPE, errno);
  expect("of a closed one", closed[0], "last words"), expect("its end", closed[0], "");
  struct pollfd state = {.fd = closed[0], .events = POLLIN | POLLOUT | POLLRDHUP};
  poll(&state, 1, 0);
  CHECK_EQ("poll of a closed one", POLLIN | POLLOUT | POLLRDHUP | POLLHUP, state.revents);
  expect("of a reset one", reset[0], "but this");
  char byte;
  CHECK_EQ("a reset one", -1, recv(reset[0], &byte, 1, 0));
  CHECK_EQ("a reset one: error", ECONNRESET, errno);
  expect_from("credentials 1", credentials[1], "of root", root, 0);
  expect_from("credentials 2", credentials[1], "of 12", root, 12);
  expect_from("credentials 3", credentials[1], "of root again", root, 0);
  CHECK_EQ("SO_PASSCRED", 1, option(credentials[1], SO_PASSCRED));
  CHECK_EQ("SO_SNDBUF", sizes[0], option(options[0], SO_SNDBUF));
  CHECK_EQ("SO_SNDBUF of the other", sizes[1], option(options[1], SO_SNDBUF));
  CHECK_EQ("SO_RCVBUF", 60000, option(options[0], SO_RCVBUF));
  CHECK_EQ("SO_PEEK_OFF", 3, option(options[0], SO_PEEK_OFF));
  CHECK_EQ("SO_PEEK_OFF of the other", -1, option(stream[0], SO_PEEK_OFF));
  CHECK_EQ("SO_RCVLOWAT", 5, option(options[0], SO_RCVLOWAT));
  CHECK_EQ("SO_TIMESTAMP", 1, option(options[0], SO_TIMESTAMP));
  if (has_pidfd) CHECK_EQ("SO_PASSPIDFD", 1, option(options[0], PASSPIDFD));
  CHECK_EQ("SO_PASSCRED of another", 0, option(options[0], SO_PASSCRED));
  struct timeval now;
  socklen_t length = sizeof(now);
  MUST(getsockopt(options[0], SOL_SOCKET, SO_RCVTIMEO, &now, &length));
  CHECK("SO_RCVTIMEO", now.tv_sec == 3 && now.tv_usec == 500000);
  CHECK_EQ("SO_PEERCRED", root, peer(stream[0]).pid);
  size_t done = 0;
  unsigned char *all = malloc(sizeof(large));
  while (done < sizeof(large)) {
    ssize_t n = recv(big[1], all + done, sizeof(large) - done, MSG_DONTWAIT);
    if (n <= 0) break;
    done += (size_t)n;
  }
  CHECK_EQ("bytes of the big one", (long)sizeof(large), (long)done);
  CHECK_BYTES("the big one", large, all, done);
  expect("from the child", shared[0], "from the child;");
  put(shared[0], "to the child");
  struct pollfd ready = {.fd = shared[0], .events = POLLIN};
  poll(&ready, 1, 10000);
  expect("the child's answer", shared[0], "an answer");
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
