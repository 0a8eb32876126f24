/*
 * Starts, times and ends what the benchmark runs: the tools and the programs.
 *
 * Usage: host DIRECTORY...
 *
 * A process as small as this one measures better than a script could (the
 * time from fork to exit, and the peak memory that wait4 tells), and it is
 * the parent of every program, also of a restored one (child subreaper), so a
 * program that was killed is reaped at once.
 *
 * It lives in a mount namespace of its own with a tmpfs on /run: CRIU keeps
 * what it knows of the kernel there, and forgets it where /run is no tmpfs.
 * Programs start in there too; CRIU cannot dump descriptors of other mount
 * namespaces.
 *
 * Commands come on standard input, one a line, fields parted by tabs; each is
 * answered by one line on standard output:
 *
 *   start LOG PROGRAM [ARGUMENT...]   pid PID
 *   run LOG PROGRAM [ARGUMENT...]     ran WALL_NS PEAK_KIB STATUS USER_US SYS_US
 *   reap PID                          ended STATUS
 *   kill PID                          ended STATUS, as reap with all below it
 *   forget FILE                       forgot
 *
 * STATUS is that of wait(2); a command that hangs is killed. Any failure: "error WHAT: WHY". When its input
 * ends, for whatever reason, it kills and reaps all that it started, removes
 * the DIRECTORIES, and exits.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIELDS 64
/* Of one command; no tool takes nearly as long. */
#define LIMIT_MS 120000

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void failed(const char *what) {
  printf("error %s: %s\n", what, strerror(errno));
}

/* A new session is a new scheduling group: it gets the priority of this one,
   so that a benchmark raised above a busy machine raises its programs too. */
static char priority[8] = "0";

static void read_priority(void) {
  FILE *group = fopen("/proc/self/autogroup", "r");
  if (!group) return;
  if (fscanf(group, "/autogroup-%*d nice %7s", priority) != 1)
    strcpy(priority, "0");
  fclose(group);
}

static void inherit_priority(void) {
  if (!strcmp(priority, "0")) return;
  FILE *group = fopen("/proc/self/autogroup", "w");
  if (!group) return;
  fputs(priority, group);
  fclose(group);
}

/* In the child: standard input from nowhere, output to the log, no other
   descriptor, a session of its own when asked. */
static void become(const char *log, char **command, int session) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  if (session) {
    if (setsid() < 0) _exit(126);
    inherit_priority();
  }
  if (chdir("/")) _exit(126);
  int in = open("/dev/null", O_RDONLY);
  int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (in < 0 || out < 0) _exit(126);
  dup2(in, 0);
  dup2(out, 1);
  dup2(out, 2);
  close_range(3, ~0u, 0);
  execv(command[0], command);
  _exit(127);
}

static void start(char **field) {
  pid_t child = fork();
  if (child == 0) become(field[1], field + 2, 1);
  if (child < 0) failed("fork");
  else printf("pid %d\n", child);
}

static void run(char **field) {
  uint64_t before = now();
  pid_t child = fork();
  if (child == 0) become(field[1], field + 2, 0);
  if (child < 0) {
    failed("fork");
    return;
  }
  /* Ends what hangs, and what runs when nobody is left to tell. */
  struct pollfd ends[] = {
      {.fd = syscall(SYS_pidfd_open, child, 0), .events = POLLIN},
      {.fd = STDIN_FILENO, .events = 0},
  };
  if (ends[0].fd < 0 || poll(ends, 2, LIMIT_MS) <= 0 || ends[1].revents)
    kill(child, SIGKILL);
  int status;
  struct rusage usage;
  if (wait4(child, &status, 0, &usage) < 0) {
    failed("wait4");
    return;
  }
  uint64_t wall = now() - before;
  close(ends[0].fd);
  printf("ran %llu %ld %d %llu %llu\n", (unsigned long long)wall,
         usage.ru_maxrss, status,
         usage.ru_utime.tv_sec * 1000000ull + usage.ru_utime.tv_usec,
         usage.ru_stime.tv_sec * 1000000ull + usage.ru_stime.tv_usec);
}

/* Children are only ever ours: what we started, and what lost its parent. */
static void end_all(void) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/task/%d/children", getpid());
  for (;;) {
    FILE *children = fopen(name, "r");
    int pid, found = 0;
    while (children && fscanf(children, "%d", &pid) == 1) {
      kill(pid, SIGKILL);
      waitpid(pid, NULL, 0);
      found = 1;
    }
    if (children) fclose(children);
    if (!found) return;
  }
}

static void reap(const char *text, int signal) {
  pid_t pid = atoi(text);
  int status;
  if (pid <= 1) {
    errno = EINVAL;
    failed(text);
  } else if (signal && kill(pid, signal)) {
    failed("kill");
  } else if (waitpid(pid, &status, 0) < 0) {
    failed("waitpid");
  } else {
    /* what it had below it came here */
    end_all();
    printf("ended %d\n", status);
  }
}

static void handle(char *line) {
  char *field[FIELDS + 1];
  int count = 0;
  line[strcspn(line, "\n")] = 0;
  for (char *part; count < FIELDS && (part = strsep(&line, "\t"));)
    field[count++] = part;
  field[count] = NULL;
  if (count >= 3 && !strcmp(field[0], "start")) start(field);
  else if (count >= 3 && !strcmp(field[0], "run")) run(field);
  else if (count == 2 && !strcmp(field[0], "reap")) reap(field[1], 0);
  else if (count == 2 && !strcmp(field[0], "kill")) reap(field[1], SIGKILL);
  else if (count == 2 && !strcmp(field[0], "forget")) {
    if (unlink(field[1]) && errno != ENOENT) failed(field[1]);
    else printf("forgot\n");
  } else {
    printf("error %s: not a command\n", field[0]);
  }
}

static int remove_one(const char *path, const struct stat *s, int type,
                      struct FTW *at) {
  (void)s, (void)type, (void)at;
  remove(path);
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  /* Out of reach of Ctrl-C, which is for the benchmark: this process ends
     when its input does, and has to clean up before. */
  setpgid(0, 0);
  signal(SIGPIPE, SIG_IGN);
  read_priority();
  if (prctl(PR_SET_CHILD_SUBREAPER, 1)) failed("PR_SET_CHILD_SUBREAPER");
  else if (unshare(CLONE_NEWNS) ||
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
           mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
    failed("mount namespace with a tmpfs on /run");
  else {
    printf("ready\n");
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) handle(line);
  }
  end_all();
  for (int i = 1; i < argc; i++) {
    /* mounts.c mounts it on itself */
    while (umount2(argv[i], MNT_DETACH) == 0) {}
    nftw(argv[i], remove_one, 16, FTW_DEPTH | FTW_PHYS);
  }
  return 0;
}
