/* More descriptors than are asked for one by one: of files, pipes, sockets and counters, half of them shared with a child. */
#include "tree.h"
#include <linux/kcmp.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { SETS = 160 };
static struct set {
  int file, again, ends[2], count, pair[2], signals;
} sets[SETS];

static bool same(pid_t pid, int a, int b) { return syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, a, b) == 0; }

static void make(struct set *s, int i) {
  char name[32], byte = (char)i;
  sigset_t signals;
  snprintf(name, sizeof(name), "file-%d", i % 10);
  s->file = (int)MUST(open(name, O_RDWR | O_CREAT, 0600));
  MUST(ftruncate(s->file, 1000 + i % 10));
  MUST(lseek(s->file, i, SEEK_SET));
  s->again = (int)MUST(fcntl(s->file, F_DUPFD_CLOEXEC, 0));
  MUST(pipe2(s->ends, i % 2 ? O_NONBLOCK : 0));
  MUST(write(s->ends[1], &byte, 1));
  s->count = (int)MUST(eventfd((unsigned)i + 1, i % 3 ? 0 : EFD_SEMAPHORE));
  MUST(socketpair(AF_UNIX, i % 2 ? SOCK_STREAM : SOCK_DGRAM, 0, s->pair));
  MUST(write(s->pair[0], &byte, 1));
  sigemptyset(&signals), sigaddset(&signals, 1 + i % 8);
  s->signals = (int)MUST(signalfd(-1, &signals, 0));
}

static void compare(const struct set *s, int i) {
  char byte = (char)~i;
  uint64_t count = 0;
  struct stat st = {0};
  CHECK_EQ("set %d: size of the file", 0, fstat(s->file, &st), i);
  CHECK_EQ("set %d: size of the file", 1000 + i % 10, st.st_size, i);
  CHECK_EQ("set %d: position", i, lseek(s->file, 0, SEEK_CUR), i);
  CHECK("set %d: the file again", same(getpid(), s->file, s->again), i);
  CHECK("set %d: opened another time", !same(getpid(), s->file, sets[(i + 10) % SETS].file), i);
  CHECK_EQ("set %d: FD_CLOEXEC", 0, fcntl(s->file, F_GETFD), i);
  CHECK_EQ("set %d: FD_CLOEXEC", FD_CLOEXEC, fcntl(s->again, F_GETFD), i);
  CHECK_EQ("set %d: a pipe", 1, read(s->ends[0], &byte, 1), i);
  CHECK_EQ("set %d: a pipe", (char)i, byte, i);
  CHECK_EQ("set %d: an eventfd", 8, read(s->count, &count, 8), i);
  CHECK_EQ("set %d: an eventfd", i % 3 ? i + 1 : 1, count, i);
  CHECK_EQ("set %d: a socket", 1, read(s->pair[1], &byte, 1), i);
  CHECK_EQ("set %d: a socket", (char)i, byte, i);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(chdir(check_dir));
  struct rlimit files;
  MUST(getrlimit(RLIMIT_NOFILE, &files));
  files.rlim_cur = files.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &files));
  for (int i = 0; i < SETS / 2; i++) make(&sets[i], i);
  pid_t root = getpid(), child = tree_fork("child");
  if (child) {
    for (int i = SETS / 2; i < SETS; i++) make(&sets[i], i);
  } else {
    tree_settled();
    for (int i = 0; i < SETS / 2; i++) CHECK("set %d: shared", same(root, sets[i].file, sets[i].again) && same(root, sets[i].count, sets[i].count), i);
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  tree_collect("child");
  tree_wait(child, W_EXITCODE(0, 0));
  for (int i = 0; i < SETS; i++) compare(&sets[i], i);
  return check_finish();
}
