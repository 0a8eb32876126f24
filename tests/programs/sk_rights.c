/*
 * Descriptors in flight: sent by SCM_RIGHTS over all types of Unix sockets and not received yet; of files that nobody
 * has open any more, of sockets in whose queues there are others, sent by a process that is not the one who opened
 * them, and by sockets that are closed; with the bytes they were sent with.
 */
#include "tree.h"
#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define MOST 4

static void send_with(int to, const char *text, int count, const int *fds) {
  union {
    char room[CMSG_SPACE(MOST * sizeof(int))];
    struct cmsghdr align;
  } control = {{0}};
  struct iovec io = {(void *)text, strlen(text)};
  struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
                           .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
  memcpy(CMSG_DATA(header), fds, (size_t)count * sizeof(int));
  MUST(sendmsg(to, &message, MSG_NOSIGNAL));
}
static void send_one(int to, const char *text, int fd) { send_with(to, text, 1, &fd); }

/** Reads as much as the text is long; returns the first of the descriptors, of which there have to be so many. */
static int receive(const char *name, int from, const char *text, int count, int *fds) {
  char got[256] = {0};
  union {
    char room[512];
    struct cmsghdr align;
  } control;
  struct iovec io = {got, strlen(text) ? strlen(text) : 1};
  struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  struct pollfd ready = {.fd = from, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 5000), name);
  CHECK_EQ("%s: length", (long)strlen(text), (long)recvmsg(from, &message, MSG_DONTWAIT), name);
  CHECK_STRING(name, text, got);
  int found = 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_type != SCM_RIGHTS) continue;
    found = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    if (found <= count) memcpy(fds, CMSG_DATA(header), (size_t)found * sizeof(int));
  }
  CHECK_EQ("%s: descriptors", count, found, name);
  return count == found && count > 0 ? fds[0] : -1;
}
static int receive_one(const char *name, int from, const char *text) {
  int fd = -1;
  return receive(name, from, text, 1, &fd);
}
static void expect(const char *name, int fd, const char *text) {
  char got[256] = {0};
  CHECK_EQ("%s: length", (long)strlen(text), (long)read(fd, got, sizeof(got) - 1), name);
  CHECK_STRING(name, text, got);
}
static void put(int fd, const char *text) { MUST(write(fd, text, strlen(text))); }
static void pair(int type, int *ends) { MUST(socketpair(AF_UNIX, type, 0, ends)); }
static bool same(int a, int b) {
  struct stat one, other;
  return fstat(a, &one) == 0 && fstat(b, &other) == 0 && one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200];
  int fds[MOST], ends[2];
  /* a file that is open still, one that is not, one that is deleted, a directory: at once */
  int packets[2];
  pair(SOCK_SEQPACKET, packets);
  snprintf(path, sizeof(path), "%s/kept", check_dir);
  int kept = fds[0] = (int)MUST(open(path, O_RDWR | O_CREAT, 0600));
  put(kept, "kept file"), MUST(lseek(kept, 5, SEEK_SET));
  snprintf(path, sizeof(path), "%s/sent", check_dir);
  fds[1] = (int)MUST(open(path, O_RDWR | O_CREAT, 0600));
  put(fds[1], "sent file"), MUST(lseek(fds[1], 0, SEEK_SET));
  snprintf(path, sizeof(path), "%s/deleted", check_dir);
  fds[2] = (int)MUST(open(path, O_RDWR | O_CREAT, 0600));
  put(fds[2], "deleted file"), MUST(lseek(fds[2], 0, SEEK_SET)), MUST(unlink(path));
  fds[3] = (int)MUST(open(check_dir, O_RDONLY | O_DIRECTORY));
  send_with(packets[0], "four", 4, fds);
  put(packets[0], "none");
  send_with(packets[0], "kept again", 1, fds);
  close(fds[1]), close(fds[2]), close(fds[3]);
  /* a stream: a message of its own, and one behind others */
  int alone[2], behind[2];
  pair(SOCK_STREAM, alone), pair(SOCK_STREAM, behind);
  MUST(pipe2(ends, O_NONBLOCK)), put(ends[1], "in the pipe");
  send_one(alone[0], "header and body", ends[0]);
  int writes = ends[1];
  close(ends[0]);
  fds[0] = eventfd(7, EFD_NONBLOCK), fds[1] = (int)MUST(memfd_create("sent", 0));
  put(fds[1], "in the memfd"), MUST(lseek(fds[1], 0, SEEK_SET));
  put(behind[0], "plain "), send_one(behind[0], "with an eventfd", fds[0]), put(behind[0], "and ");
  send_one(behind[0], "with a memfd", fds[1]), put(behind[0], "the end");
  close(fds[0]), close(fds[1]);
  /* sockets in sockets in sockets; the innermost holds the outermost */
  int outer[2], middle[2], inner[2];
  pair(SOCK_DGRAM, outer), pair(SOCK_STREAM, middle), pair(SOCK_SEQPACKET, inner);
  put(middle[0], "in the middle "), send_one(inner[0], "a file in three", kept), send_one(inner[0], "a circle", outer[1]);
  send_one(middle[0], "two", inner[1]), send_one(outer[0], "one", middle[1]);
  close(inner[1]), close(middle[1]);
  /* a listener on its way, with a connection that waits */
  int listener = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                                 (size_t)snprintf(address.sun_path + 1, 90, "ckpt-rights-%d", getpid()));
  MUST(bind(listener, (struct sockaddr *)&address, length)), MUST(listen(listener, 3));
  MUST(connect(client, (struct sockaddr *)&address, length));
  int carrier[2];
  pair(SOCK_STREAM, carrier), send_one(carrier[0], "listener", listener), close(listener);
  /* a sender that is closed, and one that is a process's own who ends */
  int orphan[2];
  pair(SOCK_STREAM, orphan), put(orphan[0], "last "), send_one(orphan[0], "words", kept), close(orphan[0]);
  /* whoever sends to a name; a receiver that asks for credentials */
  int named = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), sender = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), on = 1;
  if (snprintf(path, sizeof(path), "%s/n", check_dir) >= (int)sizeof(address.sun_path)) check_die("the path is too long");
  strcpy(address.sun_path, path);
  MUST(bind(named, (struct sockaddr *)&address, sizeof(address)));
  MUST(setsockopt(named, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
  MUST(connect(sender, (struct sockaddr *)&address, sizeof(address)));
  put(sender, "hello"), send_one(sender, "by name", kept), MUST(unlink(address.sun_path));
  int shared[2], back[2];
  pair(SOCK_STREAM, shared), pair(SOCK_STREAM, back);
  pid_t child = tree_fork("child");
  if (child == 0) {
    close(shared[0]), close(back[1]);
    /* what the child has made, for the root; and the root for the child */
    int own[2];
    pair(SOCK_STREAM, own);
    send_one(shared[1], "of the child", own[1]), close(own[1]);
    put(own[0], "in the child's");
    tree_settled();
    int got = receive_one("of the root", back[0], "of the root");
    expect("the pipe of the root", got, "in another pipe");
    tree_report(0);
  }
  tree_await("child");
  close(shared[1]), close(back[0]);
  MUST(pipe(ends)), put(ends[1], "in another pipe"), send_one(back[1], "of the root", ends[0]), close(ends[0]);

  check_ready();

  if (receive("seqpacket", packets[1], "four", 4, fds) >= 0) {
    CHECK("the kept file", same(fds[0], kept));
    expect("position of the kept file", fds[0], "file");
    CHECK_EQ("it is one open file", 9, (long)lseek(kept, 0, SEEK_CUR));
    expect("the sent file", fds[1], "sent file"), expect("the deleted file", fds[2], "deleted file");
    CHECK_EQ("a directory", 0, faccessat(fds[3], "kept", F_OK, 0));
  }
  CHECK_EQ("seqpacket without", -1, receive("seqpacket without", packets[1], "none", 0, fds));
  CHECK("once more", same(receive_one("once more", packets[1], "kept again"), kept));
  /* whoever reads the header only gets it with that */
  int got = receive_one("stream header", alone[1], "header");
  receive("stream body", alone[1], " and body", 0, fds);
  expect("the pipe", got, "in the pipe");
  put(writes, "more"), expect("the pipe goes on", got, "more");
  receive("stream, plain", behind[1], "plain ", 0, fds);
  uint64_t count = 0;
  got = receive_one("stream, eventfd", behind[1], "with an eventfd");
  CHECK_EQ("the eventfd", 8, (long)read(got, &count, 8));
  CHECK_EQ("its count", 7, (long)count);
  receive("stream, between", behind[1], "and ", 0, fds);
  expect("the memfd", receive_one("stream, memfd", behind[1], "with a memfd"), "in the memfd");
  receive("stream, end", behind[1], "the end", 0, fds);
  int one = receive_one("one", outer[1], "one");
  receive("in the middle", one, "in the middle ", 0, fds);
  int two = receive_one("two", one, "two");
  CHECK("three", same(receive_one("three", two, "a file in three"), kept));
  CHECK("a circle", same(receive_one("a circle", two, "a circle"), outer[1]));
  put(inner[0], "to the innermost"), expect("the innermost", two, "to the innermost");
  put(two, "back"), expect("from the innermost", inner[0], "back");
  got = receive_one("listener", carrier[1], "listener");
  int accepted = accept(got, NULL, NULL);
  CHECK("accepted", accepted >= 0);
  put(client, "to what was in flight"), expect("accepted by it", accepted, "to what was in flight");
  receive("last", orphan[1], "last ", 0, fds);
  CHECK("words", same(receive_one("words", orphan[1], "words"), kept));
  expect("no more words", orphan[1], "");
  receive("hello", named, "hello", 0, fds);
  CHECK("by name", same(receive_one("by name", named, "by name"), kept));
  got = receive_one("of the child", shared[0], "of the child");
  expect("of the child's", got, "in the child's");
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
