/*
 * Holds leases, which a child breaks afterwards: the holder is told by the signal it chose, with the descriptor.
 */
#include "check.h"
#include <signal.h>
#include <sys/wait.h>

static char path[4400];
static const char *in_dir(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  return path;
}

static const char *const LEASED[2] = {"leased to read", "leased to write"};
static int leased[2];

/** A stranger opens a file with a lease, which the holder is told by a signal. */
static void break_lease(int i, int signal) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set), sigaddset(&set, signal);
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) {
    int fd = open(in_dir(LEASED[i]), (i == 0 ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
    _exit(fd < 0 && errno == EWOULDBLOCK ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  CHECK_EQ("%s: opening it waits", 0, status, LEASED[i]);
  int got = sigtimedwait(&set, &info, &(struct timespec){10, 0});
  CHECK_EQ("%s: the signal", signal, got, LEASED[i]);
  if (signal != SIGIO) CHECK_EQ("%s: the descriptor in the signal", leased[i], info.si_fd, LEASED[i]);
  CHECK_EQ("%s: giving it up", 0, fcntl(leased[i], F_SETLEASE, F_UNLCK), LEASED[i]);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGIO), sigaddset(&set, SIGRTMIN + 3);
  MUST(sigprocmask(SIG_BLOCK, &set, NULL));
  for (int i = 0; i < 2; i++) {
    close((int)MUST(open(in_dir(LEASED[i]), O_RDWR | O_CREAT, 0644)));
    leased[i] = (int)MUST(open(in_dir(LEASED[i]), i == 0 ? O_RDONLY : O_RDWR));
  }
  MUST(fcntl(leased[0], F_SETSIG, SIGRTMIN + 3));
  MUST(fcntl(leased[0], F_SETLEASE, F_RDLCK));
  MUST(fcntl(leased[1], F_SETLEASE, F_WRLCK));
  check_ready();
  CHECK_EQ("lease to read", F_RDLCK, fcntl(leased[0], F_GETLEASE));
  CHECK_EQ("lease to write", F_WRLCK, fcntl(leased[1], F_GETLEASE));
  break_lease(0, SIGRTMIN + 3);
  break_lease(1, SIGIO);
  return check_finish();
}
