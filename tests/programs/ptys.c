/*
 * Holds pseudo terminals in every state that they have: modes, window sizes, packets, locks, slaves that are closed or
 * were never open, and one that controls a session with a group in the foreground.
 */
#include "check.h"
#include <asm/termbits.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int master(void) { return (int)MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY)); }
static void unlock(int fd) { MUST(ioctl(fd, TIOCSPTLCK, &(int){0})); }
static int number(int fd) {
  int n = -1;
  MUST(ioctl(fd, TIOCGPTN, &n));
  return n;
}
static int slave(int fd, int flags) {
  char path[32];
  snprintf(path, sizeof(path), "/dev/pts/%d", number(fd));
  return (int)MUST(open(path, flags | O_NOCTTY));
}

struct state {
  struct termios2 modes;
  struct termios locked;
  struct winsize size;
  int number, packets, lock, exclusive, session, foreground;
};
static struct state look(int fd) {
  struct state s;
  memset(&s, 0, sizeof(s));
  s.number = number(fd);
  MUST(ioctl(fd, TCGETS2, &s.modes));
  MUST(ioctl(fd, TIOCGLCKTRMIOS, &s.locked));
  MUST(ioctl(fd, TIOCGWINSZ, &s.size));
  MUST(ioctl(fd, TIOCGPKT, &s.packets));
  MUST(ioctl(fd, TIOCGPTLCK, &s.lock));
  MUST(ioctl(fd, TIOCGEXCL, &s.exclusive));
  if (ioctl(fd, TIOCGSID, &s.session) != 0) s.session = 0;
  if (ioctl(fd, TIOCGPGRP, &s.foreground) != 0) s.foreground = 0;
  return s;
}
static void compare(const char *name, struct state a, int fd) {
  struct state b = look(fd);
  CHECK_BYTES("%s: modes", &a.modes, &b.modes, sizeof(a.modes), name);
  CHECK_BYTES("%s: locked modes", &a.locked, &b.locked, sizeof(a.locked), name);
  CHECK_BYTES("%s: window size", &a.size, &b.size, sizeof(a.size), name);
  CHECK_EQ("%s: number", a.number, b.number, name);
  CHECK_EQ("%s: packets", a.packets, b.packets, name);
  CHECK_EQ("%s: lock", a.lock, b.lock, name);
  CHECK_EQ("%s: exclusive", a.exclusive, b.exclusive, name);
  CHECK_EQ("%s: session", a.session, b.session, name);
  CHECK_EQ("%s: foreground", a.foreground, b.foreground, name);
}
static void set_modes(int fd, unsigned input, unsigned output, unsigned local, int speed) {
  struct termios2 modes;
  MUST(ioctl(fd, TCGETS2, &modes));
  modes.c_iflag = input, modes.c_oflag = output, modes.c_lflag = local;
  modes.c_cflag = (modes.c_cflag & ~(unsigned)CBAUD) | BOTHER;
  modes.c_ispeed = modes.c_ospeed = (unsigned)speed;
  modes.c_cc[VMIN] = 1, modes.c_cc[VTIME] = 0, modes.c_cc[VQUIT] = 7;
  MUST(ioctl(fd, TCSETS2, &modes));
}
/** Bytes go through, and nothing else was there. */
static void expect(const char *name, int from, int to, const char *sent, const char *got) {
  char bytes[64] = "";
  CHECK_EQ("%s: writing", (long)strlen(sent), write(from, sent, strlen(sent)), name);
  ssize_t n = read(to, bytes, sizeof(bytes) - 1);
  CHECK_EQ("%s: reading", (long)strlen(got), n, name);
  if (n >= 0) bytes[n] = 0;
  CHECK_STRING("%s: what is read", got, bytes, name);
}

static volatile int *interrupted;
static void on_interrupt(int signal) { *interrupted = signal; }
static int ready[2];

/** Leads a session with a terminal, and has a child in its foreground. */
__attribute__((noreturn)) static void lead(int fd) {
  MUST(setsid());
  MUST(ioctl(fd, TIOCSCTTY, 0));
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) {
    MUST(setpgid(0, 0));
    signal(SIGINT, on_interrupt);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    while (*interrupted == 0) check_sleep_ms(2);
    /* the terminal by its other name: it is ours */
    int own = open("/dev/tty", O_RDWR), group = -1;
    if (own < 0 || ioctl(own, TIOCGPGRP, &group) != 0 || group != getpid()) _exit(2);
    _exit(write(own, "bye", 3) == 3 ? 0 : 3);
  }
  char byte;
  if (read(ready[0], &byte, 1) != 1) _exit(1);
  signal(SIGTTOU, SIG_IGN);
  MUST(ioctl(fd, TIOCSPGRP, &child));
  if (write(ready[1], "y", 1) != 1) _exit(1);
  int status;
  MUST(waitpid(child, &status, 0));
  _exit(WEXITSTATUS(status));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  interrupted = (int *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  MUST(pipe(ready));

  int raw = master();
  unlock(raw);
  int raw_slave = slave(raw, O_RDWR), reading = slave(raw, O_RDONLY | O_NONBLOCK);
  MUST(dup2(raw_slave, 70));
  MUST(fcntl(raw, F_SETFL, O_NONBLOCK));
  set_modes(raw_slave, 0, 0, 0, 12345);
  MUST(ioctl(raw, TIOCSWINSZ, &(struct winsize){33, 101, 7, 9}));
  MUST(ioctl(raw, TIOCSLCKTRMIOS, &(struct termios){.c_lflag = ECHOK}));
  MUST(ioctl(raw_slave, TIOCEXCL));

  int packets = master();
  unlock(packets);
  int packets_slave = slave(packets, O_RDWR);
  set_modes(packets_slave, ICRNL, OPOST | ONLCR, ICANON | ISIG, 9600);
  MUST(ioctl(packets, TIOCPKT, &(int){1}));
  MUST(ioctl(packets, TIOCSPTLCK, &(int){1}));
  MUST(ioctl(packets, TIOCEXCL));

  int closed = master(), never = master();
  unlock(closed);
  close(slave(closed, O_RDWR));

  int control = master();
  unlock(control);
  int control_slave = slave(control, O_RDWR);
  pid_t leader = (pid_t)MUST(fork());
  if (leader == 0) lead(control_slave);
  close(control_slave);
  char byte = 0;
  for (int i = 0; byte != 'y'; i++) {
    MUST(read(ready[0], &byte, 1));
    if (byte == 'x') MUST(write(ready[1], &byte, 1)), check_sleep_ms(1);
  }

  struct state before[] = {look(raw), look(packets), look(closed), look(never), look(control)};
  if (before[4].session != leader || before[4].foreground == leader || before[0].modes.c_ospeed != 12345)
    check_die("the terminals are not as they should be");
  check_ready();
  compare("raw", before[0], raw);
  compare("packets", before[1], packets);
  compare("closed", before[2], closed);
  compare("never open", before[3], never);
  compare("control", before[4], control);
  int exclusive = 0;
  MUST(ioctl(raw_slave, TIOCGEXCL, &exclusive));
  CHECK_EQ("an exclusive slave", 1, exclusive);

  expect("raw, to the slave", raw, raw_slave, "a\r\003", "a\r\003");
  expect("raw, to the other slave", raw, reading, "b", "b");
  expect("raw, to the master", 70, raw, "c\n", "c\n");
  CHECK_EQ("the master does not wait", -1, read(raw, &byte, 1));
  CHECK_EQ("the master does not wait", EAGAIN, errno);
  expect("packets, to the slave", packets, packets_slave, "line\r", "line\n");
  char bytes[16] = "";
  CHECK_EQ("packets: writing", 2, write(packets_slave, "x\n", 2));
  CHECK_EQ("packets: reading", 4, read(packets, bytes, sizeof(bytes)));
  CHECK_BYTES("a packet", "\0x\r\n", bytes, 4);
  CHECK_EQ("a terminal whose slave is closed", -1, read(closed, &byte, 1));
  CHECK_EQ("a terminal whose slave is closed", EIO, errno);
  MUST(fcntl(never, F_SETFL, O_NONBLOCK));
  CHECK_EQ("a slave that was never open", -1, read(never, &byte, 1));
  CHECK_EQ("a slave that was never open", EAGAIN, errno);

  CHECK_EQ("typing ^C", 1, write(control, "\003", 1));
  int status;
  MUST(waitpid(leader, &status, 0));
  CHECK_EQ("the session", 0, status);
  CHECK_EQ("the signal", SIGINT, *interrupted);
  return check_finish();
}
