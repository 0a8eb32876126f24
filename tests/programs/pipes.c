/*
 * Pipes of one process: empty, with content, full, resized, of packets, with one end closed, O_NONBLOCK on one end
 * only, both ends on one descriptor, the same end open twice, and threads that are blocked in reading and writing.
 */
#include "check.h"
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

struct end_pair {
  int read, write;
};
static struct end_pair make(int flags) {
  int fds[2];
  MUST(pipe2(fds, flags));
  return (struct end_pair){fds[0], fds[1]};
}
static void put(int fd, size_t length, uint64_t seed) {
  char *bytes = malloc(length);
  check_fill(bytes, length, seed);
  if (write(fd, bytes, length) != (ssize_t)length) check_die("write to a pipe: %s", strerror(errno));
  free(bytes);
}
/** Reads exactly what put() wrote; never blocks. */
static void expect(const char *name, int fd, size_t length, uint64_t seed) {
  char *bytes = malloc(length), *wanted = malloc(length);
  size_t done = 0;
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  while (done < length && poll(&ready, 1, 0) == 1) {
    ssize_t n = read(fd, bytes + done, length - done);
    if (n <= 0) break;
    done += (size_t)n;
  }
  CHECK_EQ("%s: bytes", length, done, name);
  check_fill(wanted, length, seed);
  CHECK_BYTES("%s: content", wanted, bytes, done, name);
  free(bytes), free(wanted);
}
static short events(int fd, short asked) {
  struct pollfd p = {.fd = fd, .events = asked};
  return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}
static void expect_waiting(const char *name, int fd, int bytes) {
  int n = -1;
  CHECK_EQ("%s: FIONREAD", 0, ioctl(fd, FIONREAD, &n), name);
  CHECK_EQ("%s: bytes waiting", bytes, n, name);
}

struct blocked {
  pthread_t id;
  pid_t tid;
  atomic_int built;
  int fd;
  bool writes;
  char bytes[70000];
  ssize_t value;
};
static void *run(void *argument) {
  struct blocked *b = argument;
  b->tid = check_tid();
  atomic_store(&b->built, 1);
  if (!b->writes) {
    b->value = read(b->fd, b->bytes, sizeof(b->bytes));
    return NULL;
  }
  /* any stop ends a write of which a part is done: pipe(7) */
  while (b->value < (ssize_t)sizeof(b->bytes)) {
    ssize_t n = write(b->fd, b->bytes + b->value, sizeof(b->bytes) - (size_t)b->value);
    if (n <= 0) break;
    b->value += n;
  }
  return NULL;
}
static struct blocked reader, writer;
static void block(struct blocked *b, int fd, bool writes) {
  b->fd = fd, b->writes = writes;
  if (writes) check_fill(b->bytes, sizeof(b->bytes), 50);
  MUST0(pthread_create(&b->id, NULL, run, b));
  while (!atomic_load(&b->built)) check_sleep_ms(1);
  check_until_asleep(b->tid);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  struct end_pair empty = make(0), some = make(0), full = make(O_NONBLOCK), large = make(0), small = make(0);
  put(some.write, 12345, 1);
  char byte = 1;
  check_fill(&byte, 1, 2);
  size_t filled = 0;
  while (write(full.write, &byte, 1) == 1) filled++;
  MUST(fcntl(large.write, F_SETPIPE_SZ, 1 << 20));
  put(large.write, 1 << 20, 3);
  MUST(fcntl(small.read, F_SETPIPE_SZ, 4096));
  put(small.write, 100, 4);
  /* packets: what was written at once is read at once */
  struct end_pair packets = make(O_DIRECT);
  put(packets.write, 10, 5), put(packets.write, 4096, 6), put(packets.write, 1, 7);
  /* half of a packet's neighbours: content, and the other end closed */
  struct end_pair no_writer = make(0), no_reader = make(0), no_writer_empty = make(0);
  put(no_writer.write, 5000, 8);
  close(no_writer.write), no_writer.write = -1;
  put(no_reader.write, 10, 9);
  close(no_reader.read), no_reader.read = -1;
  close(no_writer_empty.write);
  /* one end does not block, the other does */
  struct end_pair half = make(0);
  MUST(fcntl(half.read, F_SETFL, O_NONBLOCK));
  /* the read end once more, as a file of its own and as the same; both ends in one */
  struct end_pair doubled = make(O_CLOEXEC);
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", doubled.read);
  int own = (int)MUST(open(path, O_RDONLY | O_NONBLOCK)), same = (int)MUST(dup(doubled.read));
  int both = (int)MUST(open(path, O_RDWR));
  put(doubled.write, 30, 10);
  /* a size of its own without content, and content read in part: from the middle of a page on */
  struct end_pair partly = make(0);
  put(partly.write, 9000, 11);
  char skipped[4321];
  MUST(read(partly.read, skipped, sizeof(skipped)) == sizeof(skipped) ? 0 : -1);
  int sizes[] = {fcntl(empty.read, F_GETPIPE_SZ), fcntl(large.read, F_GETPIPE_SZ), fcntl(small.read, F_GETPIPE_SZ)};
  /* blocked: a reader of an empty pipe, and a writer of a full one that has written a part */
  struct end_pair waits = make(0), presses = make(0);
  block(&reader, waits.read, false);
  block(&writer, presses.write, true);

  check_ready();

  CHECK_EQ("size of a pipe", sizes[0], fcntl(empty.read, F_GETPIPE_SZ));
  CHECK_EQ("size of a large pipe", sizes[1], fcntl(large.read, F_GETPIPE_SZ));
  CHECK_EQ("size of a small pipe", sizes[2], fcntl(small.read, F_GETPIPE_SZ));
  CHECK_EQ("events of an empty pipe", 0, events(empty.read, POLLIN));
  expect_waiting("some", some.read, 12345), expect("some", some.read, 12345, 1);
  expect_waiting("full", full.read, (int)filled);
  CHECK_EQ("write to a full pipe", -1, write(full.write, &byte, 1));
  size_t bytes = 0;
  char got = 0;
  while (read(full.read, &got, 1) == 1) bytes += got == byte;
  CHECK_EQ("bytes of the full pipe", filled, bytes);
  expect("large", large.read, 1 << 20, 3);
  expect("small", small.read, 100, 4);
  const size_t lengths[] = {10, 4096, 1};
  for (int i = 0; i < 3; i++) {
    char packet[8192], wanted[4096];
    ssize_t n = events(packets.read, POLLIN) & POLLIN ? read(packets.read, packet, sizeof(packet)) : -1;
    CHECK_EQ("length of packet %d", lengths[i], n, i);
    check_fill(wanted, lengths[i], 5 + (uint64_t)i);
    if (n == (ssize_t)lengths[i]) CHECK_BYTES("packet %d", wanted, packet, lengths[i], i);
  }
  CHECK("O_DIRECT of packets", fcntl(packets.write, F_GETFL) & O_DIRECT);
  /* and for those to come */
  put(packets.write, 3, 12), put(packets.write, 4, 13);
  expect("new packet", packets.read, 3, 12), expect("next new packet", packets.read, 4, 13);
  expect("content without writer", no_writer.read, 5000, 8);
  CHECK_EQ("end of file without writer", 0, read(no_writer.read, &got, 1));
  CHECK_EQ("events without writer", POLLHUP, events(no_writer_empty.read, POLLIN));
  CHECK_EQ("write without reader", -1, write(no_reader.write, &got, 1));
  CHECK_EQ("its error", EPIPE, errno);
  CHECK("O_NONBLOCK of the reader", fcntl(half.read, F_GETFL) & O_NONBLOCK);
  CHECK("O_NONBLOCK of the writer", !(fcntl(half.write, F_GETFL) & O_NONBLOCK));
  CHECK_EQ("read that does not block", -1, read(half.read, &got, 1));
  pid_t pid = getpid();
  CHECK_EQ("the same open file", 0, syscall(SYS_kcmp, pid, pid, 0, doubled.read, same));
  CHECK("another open file", syscall(SYS_kcmp, pid, pid, 0, doubled.read, own) > 0);
  CHECK_EQ("FD_CLOEXEC", FD_CLOEXEC, fcntl(doubled.read, F_GETFD));
  CHECK_EQ("FD_CLOEXEC of the copy", 0, fcntl(same, F_GETFD));
  CHECK_EQ("O_NONBLOCK and mode of the other open file", O_NONBLOCK | O_RDONLY, fcntl(own, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
  CHECK_EQ("mode of both ends in one", O_RDWR, fcntl(both, F_GETFL) & O_ACCMODE);
  put(both, 20, 14);
  expect("by the other open file", own, 30, 10), expect("by both ends in one", doubled.read, 20, 14);
  char rest[9000];
  check_fill(rest, sizeof(rest), 11);
  char left[9000];
  CHECK_EQ("the rest of what was read in part", 9000 - 4321, read(partly.read, left, sizeof(left)));
  CHECK_BYTES("its content", rest + 4321, left, 9000 - 4321);
  put(waits.write, 777, 15);
  MUST0(pthread_join(reader.id, NULL));
  CHECK_EQ("value of the blocked read", 777, reader.value);
  check_filled("what it has read", reader.bytes, 777, 15);
  /* all of what the blocked thread wanted to write comes, in order, once */
  char *pressed = malloc(sizeof(writer.bytes));
  size_t done = 0;
  for (struct pollfd p = {.fd = presses.read, .events = POLLIN}; done < sizeof(writer.bytes) && poll(&p, 1, 5000) == 1;) {
    ssize_t n = read(presses.read, pressed + done, sizeof(writer.bytes) - done);
    if (n <= 0) break;
    done += (size_t)n;
  }
  CHECK_EQ("bytes of the blocked write", sizeof(writer.bytes), done);
  check_filled("what it has written", pressed, done, 50);
  CHECK_EQ("further bytes", 0, events(presses.read, POLLIN));
  MUST0(pthread_join(writer.id, NULL));
  CHECK_EQ("value of the blocked write", (ssize_t)sizeof(writer.bytes), writer.value);
  return check_finish();
}
