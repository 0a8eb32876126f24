/* A program of a terminal: its standard streams, session, process group and the terminal's own state. */
#include "check.h"
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

struct state {
  int is_terminal[3], flags[3];
  dev_t device[3];
  pid_t session, group, terminal_session, foreground;
  struct termios settings;
  struct winsize size;
  char name[64];
};

static void look(struct state *s) {
  memset(s, 0, sizeof(*s));
  for (int fd = 0; fd < 3; fd++) {
    struct stat st;
    s->is_terminal[fd] = isatty(fd);
    s->flags[fd] = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) == 0) s->device[fd] = st.st_rdev;
  }
  s->session = getsid(0);
  s->group = getpgrp();
  s->terminal_session = tcgetsid(0);
  s->foreground = tcgetpgrp(0);
  tcgetattr(0, &s->settings);
  ioctl(0, TIOCGWINSZ, &s->size);
  ttyname_r(0, s->name, sizeof(s->name));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct state before, after;
  look(&before);
  if (!before.is_terminal[0] || !before.is_terminal[1] || !before.is_terminal[2]) check_die("not on a terminal");
  check_ready();
  look(&after);
  for (int fd = 0; fd < 3; fd++) {
    CHECK_EQ("stream %d is a terminal", 1, after.is_terminal[fd], fd);
    CHECK_EQ("flags of stream %d", before.flags[fd], after.flags[fd], fd);
    CHECK_EQ("device of stream %d", (long)before.device[fd], (long)after.device[fd], fd);
  }
  CHECK_EQ("session", before.session, after.session);
  CHECK_EQ("process group", before.group, after.group);
  CHECK_EQ("session of the terminal", before.terminal_session, after.terminal_session);
  CHECK_EQ("foreground group of the terminal", before.foreground, after.foreground);
  CHECK_BYTES("settings of the terminal", &before.settings, &after.settings, sizeof(before.settings));
  CHECK_BYTES("size of the terminal", &before.size, &after.size, sizeof(before.size));
  CHECK_STRING("name of the terminal", before.name, after.name);
  CHECK_EQ("writing to the terminal", 6, write(1, "hello\n", 6));
  return check_finish();
}
