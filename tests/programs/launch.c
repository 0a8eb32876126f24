/*
 * Starts a test program the way a service manager would, undoing what Deno leaves on its children:
 *
 *   launch LOG DIRECTORY PROGRAM [ARGUMENT...]
 *
 * The program gets stdin from /dev/null, stdout and stderr appended to LOG, its own session, DIRECTORY as working
 * directory, default signal actions, an empty mask, no other descriptor. Prints its pid and leaves it as an orphan.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what) {
  dprintf(2, "launch: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 4) return dprintf(2, "usage: launch LOG DIRECTORY PROGRAM [ARGUMENT...]\n"), 2;
  int outcome[2];
  if (pipe2(outcome, O_CLOEXEC)) return fail("pipe2");
  pid_t pid = fork();
  if (pid < 0) return fail("fork");
  if (pid > 0) {
    char error[256];
    close(outcome[1]);
    ssize_t n = read(outcome[0], error, sizeof(error));
    if (n > 0) return dprintf(2, "%.*s", (int)n, error), waitpid(pid, NULL, 0), 1;
    printf("%d\n", pid);
    return 0;
  }
  if (dup2(outcome[1], 3) < 0) return fail("dup2");
  dup2(2, 4);
  close_range(5, ~0u, 0);
  fcntl(3, F_SETFD, FD_CLOEXEC);
  fcntl(4, F_SETFD, FD_CLOEXEC);
  umask(022);
  for (int sig = 1; sig < NSIG; sig++) signal(sig, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max < 1024 ? files.rlim_max : 1024;
  setrlimit(RLIMIT_NOFILE, &files);
  int in = open("/dev/null", O_RDONLY), log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (setsid() < 0 || chdir(argv[2]) || in < 0 || log < 0) return dprintf(3, "launch: %s\n", strerror(errno)), 1;
  dup2(in, 0), dup2(log, 1), dup2(log, 2);
  close(in), close(log);
  execvp(argv[3], argv + 3);
  dprintf(3, "launch: %s: %s\n", argv[3], strerror(errno));
  _exit(1);
}
