/*
 * Holds pseudo terminals with bytes under way in both directions: lines that are complete and one that is not, ends of
 * file, echoes, output that is stopped, an unread status of packet mode, more than the line discipline holds.
 *
 * raw: only what CRIU can save, too.
 */
#include "check.h"
#include <asm/termbits.h>
#include <poll.h>
#include <sys/ioctl.h>

struct pty {
  const char *name;
  int master, slave;
};

static struct pty make(const char *name) {
  struct pty pty = {.name = name};
  char path[32];
  int number;
  pty.master = (int)MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
  MUST(ioctl(pty.master, TIOCSPTLCK, &(int){0}));
  MUST(ioctl(pty.master, TIOCGPTN, &number));
  snprintf(path, sizeof(path), "/dev/pts/%d", number);
  pty.slave = (int)MUST(open(path, O_RDWR | O_NOCTTY | O_NONBLOCK));
  return pty;
}
static struct termios2 modes(struct pty pty) {
  struct termios2 modes;
  MUST(ioctl(pty.master, TCGETS2, &modes));
  return modes;
}
static void set(struct pty pty, unsigned input, unsigned output, unsigned local) {
  struct termios2 m = modes(pty);
  m.c_iflag = input, m.c_oflag = output, m.c_lflag = local;
  MUST(ioctl(pty.master, TCSETS2, &m));
}
static int unread(int fd) {
  int n;
  MUST(ioctl(fd, FIONREAD, &n));
  return n;
}
/* A worker of the kernel's carries the bytes. */
static void await(int fd, int count) {
  for (int i = 0; unread(fd) < count; i++) {
    if (i > 20000) check_die("the terminal does not carry its bytes");
    check_sleep_ms(1);
  }
}
static void put(int fd, const void *bytes, size_t length) { MUST(write(fd, bytes, length) == (ssize_t)length ? 0 : -1); }
static void text(int fd, const char *text) { put(fd, text, strlen(text)); }
/* One read(2), which has just this. */
static void expect(struct pty pty, int fd, const char *what, const char *expected, size_t length) {
  char got[8192];
  struct pollfd waits = {.fd = fd, .events = POLLIN};
  poll(&waits, 1, 10000);
  ssize_t n = read(fd, got, sizeof(got));
  CHECK_EQ("%s: %s: its length", (long)length, n, pty.name, what);
  if (n == (ssize_t)length) CHECK_BYTES("%s: %s", expected, got, length, pty.name, what);
}
static void nothing(struct pty pty, int fd, const char *what) {
  char byte;
  ssize_t n = read(fd, &byte, 1);
  CHECK_EQ("%s: %s: no more", -1, n, pty.name, what);
  if (n < 0) CHECK_EQ("%s: %s: no more", EAGAIN, errno, pty.name, what);
}
#define EXPECT(pty, end, what, expected) expect(pty, (pty).end, what, expected, sizeof(expected) - 1)

enum { COOKED = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN };

static void all(void) {
  struct pty lines = make("lines"), twin = make("its twin");
  static const char typed[] = "first\nab\004\004x\026\nz\026\004\nunfini\000\377";
  char echo[256];
  size_t echoed = 0;
  put(lines.master, typed, sizeof(typed) - 1), put(twin.master, typed, sizeof(typed) - 1);
  await(lines.slave, 13), await(twin.slave, 13);
  text(lines.slave, "out\n"), text(twin.slave, "out\n");
  /* What the master is to read, from one that is like it. */
  while (echoed < 4 || memcmp(echo + echoed - 4, "ut\r\n", 4) != 0) {
    ssize_t n = read(twin.master, echo + echoed, sizeof(echo) - echoed);
    if (n < 0) check_sleep_ms(1);
    else echoed += (size_t)n;
  }
  await(lines.master, (int)echoed);

  struct pty eol = make("another end of line");
  struct termios2 m = modes(eol);
  m.c_cc[VEOL] = 'E', m.c_lflag &= ~(unsigned)ECHO;
  MUST(ioctl(eol.master, TCSETS2, &m));
  text(eol.master, "oneEtwo\n\026E\026\026threeErest");
  await(eol.slave, 15);

  struct pty quoting = make("a key that is to be quoted");
  text(quoting.master, "q\026");
  await(quoting.master, 3);

  struct pty stopped = make("stopped by a key");
  text(stopped.slave, "seen");
  await(stopped.master, 4);
  text(stopped.master, "\023typed");
  check_sleep_ms(1);
  while (write(stopped.slave, "y", 1) == 1) check_sleep_ms(1);

  struct pty called = make("stopped by a call");
  MUST(ioctl(called.slave, TCXONC, TCOOFF));

  struct pty packets = make("packets");
  MUST(ioctl(packets.master, TIOCPKT, &(int){1}));
  text(packets.slave, "data");
  await(packets.master, 4);
  MUST(ioctl(packets.slave, TCFLSH, TCIFLUSH));
  MUST(ioctl(packets.slave, TCXONC, TCOOFF));
  m = modes(packets);
  m.c_cc[VSTOP] = 'S';
  MUST(ioctl(packets.slave, TCSETS2, &m));

  struct pty raw = make("raw");
  set(raw, 0, 0, 0);
  put(raw.master, "\r\n\003\004\026\023\000\377", 8);
  put(raw.slave, "\n\t\000\377", 4);
  await(raw.slave, 8), await(raw.master, 4);

  struct pty full = make("full");
  set(full, 0, 0, 0);
  static char bytes[40000], all[40000];
  for (size_t i = 0; i < sizeof(bytes); i++) bytes[i] = (char)(i * 7 + i / 256);
  /* pieces of which none leaves a rest of a buffer; as many as the kernel takes */
  size_t whole[2] = {0};
  for (int end = 0; end < 2; end++) {
    int to = end == 0 ? full.master : full.slave, from = end == 0 ? full.slave : full.master;
    for (size_t more = 4095, piece; more > 0; more -= piece, whole[end] += piece)
      piece = more < 1024 ? more : 1024, put(to, bytes + whole[end], piece);
    await(from, 4095);
    for (ssize_t n; (n = write(to, bytes + whole[end], whole[end] < 4095 + 16384 ? 1024 : 1792)) > 0;) whole[end] += (size_t)n;
  }
  if (whole[0] < 20000 || whole[1] < 20000) check_die("only %zu and %zu bytes", whole[0], whole[1]);

  struct pty external = make("whose modes another host changes");
  set(external, 0, 0, 0);
  MUST(ioctl(external.master, TIOCPKT, &(int){1}));
  set(external, 0, 0, ICANON | EXTPROC);

  struct pty closed = make("whose slave is closed");
  set(closed, 0, 0, ICANON);
  text(closed.master, "kept\nrest");
  text(closed.slave, "also");
  await(closed.slave, 5), await(closed.master, 4);
  close(closed.slave);

  check_ready();

  EXPECT(lines, slave, "a line", "first\n");
  EXPECT(lines, slave, "a line ended by ^D", "ab");
  EXPECT(lines, slave, "^D alone", "");
  EXPECT(lines, slave, "a quoted newline", "x\nz\004\n");
  nothing(lines, lines.slave, "a line that is not complete");
  expect(lines, lines.master, "echoes and output", echo, echoed);
  text(lines.master, "\177\177\177shed\n");
  EXPECT(lines, slave, "a line completed", "unfinshed\n");

  EXPECT(eol, slave, "a line", "oneE");
  EXPECT(eol, slave, "a line", "two\n");
  EXPECT(eol, slave, "quoted", "E\026threeE");
  nothing(eol, eol.slave, "a line that is not complete");
  text(eol.master, "\n");
  EXPECT(eol, slave, "the rest", "rest\n");

  EXPECT(quoting, master, "echo", "q^\b");
  text(quoting.master, "\003\n");
  EXPECT(quoting, slave, "a quoted key", "q\003\n");

  EXPECT(stopped, master, "what came before", "seen");
  nothing(stopped, stopped.master, "stopped");
  CHECK_EQ("stopped output", -1, write(stopped.slave, "x", 1));
  text(stopped.master, "\021\n");
  EXPECT(stopped, slave, "typed meanwhile", "typed\n");
  check_sleep_ms(1);
  char got[64] = "";
  for (size_t n = 0; n < 7;) {
    struct pollfd waits = {.fd = stopped.master, .events = POLLIN};
    if (poll(&waits, 1, 10000) != 1) break;
    ssize_t more = read(stopped.master, got + n, sizeof(got) - 1 - n);
    if (more <= 0) break;
    n += (size_t)more;
  }
  CHECK_STRING("echoes of what was typed meanwhile", "typed\r\n", got);

  CHECK_EQ("output stopped by a call", -1, write(called.slave, "x", 1));
  text(called.master, "\021");
  CHECK_EQ("a key does not start it", -1, write(called.slave, "x", 1));
  MUST(ioctl(called.slave, TCXONC, TCOON));
  CHECK_EQ("a call does", 1, write(called.slave, "x", 1));

  char status = 0;
  CHECK_EQ("the status", 1, read(packets.master, &status, 1));
  CHECK_EQ("the status", TIOCPKT_FLUSHREAD | TIOCPKT_STOP | TIOCPKT_NOSTOP, status);
  EXPECT(packets, master, "data", "\000data");
  nothing(packets, packets.master, "data");
  CHECK_EQ("packets: stopped", -1, write(packets.slave, "x", 1));

  EXPECT(raw, slave, "bytes", "\r\n\003\004\026\023\000\377");
  EXPECT(raw, master, "bytes", "\n\t\000\377");

  for (int end = 0; end < 2; end++) {
    size_t n = 0;
    while (n < whole[end]) {
      struct pollfd waits = {.fd = end == 0 ? full.slave : full.master, .events = POLLIN};
      if (poll(&waits, 1, 10000) != 1) break;
      ssize_t more = read(waits.fd, all + n, sizeof(all) - n);
      if (more <= 0) break;
      n += (size_t)more;
    }
    CHECK_EQ("full: bytes for end %d", (long)whole[end], (long)n, end);
    CHECK_BYTES("full: bytes for end %d", bytes, all, n, end);
  }

  status = 0;
  CHECK_EQ("the status of changed modes", 1, read(external.master, &status, 1));
  CHECK_EQ("the status of changed modes", TIOCPKT_IOCTL, status);
  nothing(external, external.master, "status");

  EXPECT(closed, master, "bytes", "also");
  char path[32];
  int number;
  MUST(ioctl(closed.master, TIOCGPTN, &number));
  snprintf(path, sizeof(path), "/dev/pts/%d", number);
  closed.slave = (int)MUST(open(path, O_RDWR | O_NOCTTY | O_NONBLOCK));
  EXPECT(closed, slave, "a line", "kept\n");
  nothing(closed, closed.slave, "a line that is not complete");
  text(closed.master, "\n");
  EXPECT(closed, slave, "a line", "rest\n");
}

static void raw(void) {
  struct pty pty = make("raw");
  set(pty, 0, 0, 0);
  text(pty.master, "for the slave\n\003");
  text(pty.slave, "for the master\n");
  await(pty.slave, 15), await(pty.master, 15);
  check_ready();
  EXPECT(pty, slave, "bytes", "for the slave\n\003");
  EXPECT(pty, master, "bytes", "for the master\n");
  text(pty.master, "more");
  EXPECT(pty, slave, "more", "more");
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc > 2 && strcmp(argv[2], "raw") == 0) raw();
  else all();
  return check_finish();
}
