/*
 * Descriptors of files of /proc/PID: of a child, of the process itself, of a thread, of a zombie, directories among
 * them; and of a process that is dead and reaped, and of a thread that has ended, where all there is to read is an
 * error.
 */
#include "tree.h"
#include <sys/stat.h>

static const char *const files[] = {"status", "stat", "maps", "cmdline", "task", "fd", "ns", "environ", ""};
#define FILES (sizeof(files) / sizeof(files[0]))

static int open_of(pid_t pid, const char *name) {
  char path[128];
  snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
  return open(path, O_RDONLY | O_CLOEXEC);
}
static void open_all(int *fds, pid_t pid) {
  for (size_t i = 0; i < FILES; i++) MUST(fds[i] = open_of(pid, files[i]));
}

/** The descriptor gives what a fresh one gives. */
static void expect_alive(const char *name, const int *fds, pid_t pid) {
  for (size_t i = 0; i < FILES; i++) {
    int fresh = open_of(pid, files[i]);
    struct stat a = {0}, b = {0};
    CHECK_EQ("fstat of %s's %s", 0, fstat(fds[i], &a), name, files[i]);
    fstat(fresh, &b);
    CHECK_EQ("mode of %s's %s", b.st_mode, a.st_mode, name, files[i]);
    char path[64], link[2][256] = {{0}};
    for (int k = 0; k < 2; k++) {
      snprintf(path, sizeof(path), "/proc/self/fd/%d", k ? fds[i] : fresh);
      if (readlink(path, link[k], sizeof(link[k]) - 1) < 0) link[k][0] = 0;
    }
    CHECK_STRING("name of %s's %s", link[0], link[1], name, files[i]);
    if (S_ISREG(b.st_mode)) {
      char text[2][64] = {{0}};
      CHECK_EQ("bytes of %s's %s", pread(fresh, text[0], 32, 0), pread(fds[i], text[1], 32, 0), name, files[i]);
      CHECK_STRING("begin of %s's %s", text[0], text[1], name, files[i]);
    } else {
      CHECK_EQ("something in %s's %s", 0, faccessat(fds[i], ".", X_OK, 0), name, files[i]);
    }
    close(fresh);
  }
}

static pid_t thread_tid;
static atomic_int thread_ready;
static void *run(void *unused) {
  (void)unused;
  thread_tid = check_tid();
  atomic_store(&thread_ready, 1);
  check_wait_go();
  while (!atomic_load(&thread_ready)) check_sleep_ms(1);
  for (;;) check_sleep_ms(1000);
  return NULL;
}

static void *end_at_go(void *go) {
  thread_tid = check_tid();
  atomic_store(&thread_ready, 1);
  while (!atomic_load((atomic_int *)go)) check_sleep_ms(1);
  return NULL;
}
/** Files of a thread of this process, which has ended. */
static void open_of_ended(int fds[2]) {
  static atomic_int go;
  pthread_t id;
  char path[64];
  MUST0(pthread_create(&id, NULL, end_at_go, &go));
  while (!atomic_load(&thread_ready)) check_sleep_ms(1);
  snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread_tid);
  fds[0] = (int)MUST(open(path, O_RDONLY));
  snprintf(path, sizeof(path), "/proc/self/task/%d", thread_tid);
  fds[1] = (int)MUST(open(path, O_RDONLY | O_DIRECTORY));
  atomic_store(&go, 1);
  MUST0(pthread_join(id, NULL));
  while (access(path, F_OK) == 0) check_sleep_ms(1);
  atomic_store(&thread_ready, 0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pthread_t id;
  int of_ended[2];
  open_of_ended(of_ended);
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&thread_ready)) check_sleep_ms(1);
  pid_t child = tree_fork("child"), zombie, reaped;
  int of_child[FILES], of_self[FILES], of_reaped[FILES];
  if (child == 0) {
    open_all(of_child, getppid());
    tree_settled();
    expect_alive("the parent", of_child, getppid());
    tree_leave_report();
    while (!tree_exists("report-", "looked")) check_sleep_ms(1);
    _exit(0);
  }
  tree_await("child");
  if ((zombie = (pid_t)MUST(fork())) == 0) _exit(1);
  if ((reaped = (pid_t)MUST(fork())) == 0) pause();
  open_all(of_child, child), open_all(of_self, getpid()), open_all(of_reaped, reaped);
  char path[64], text[256];
  snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread_tid);
  int of_thread = (int)MUST(open(path, O_RDONLY)), of_zombie = (int)MUST(open_of(zombie, "stat"));
  MUST(read(of_child[0], text, 10));
  off_t position = (off_t)MUST(lseek(of_child[0], 0, SEEK_CUR));
  kill(reaped, SIGKILL);
  MUST(waitpid(reaped, NULL, 0));
  tree_await_state(zombie, 'Z');
  check_ready();
  CHECK_EQ("position in the child's status", position, lseek(of_child[0], 0, SEEK_CUR));
  expect_alive("the child", of_child, child), expect_alive("the process", of_self, getpid());
  check_write_file("report-looked", "ok\n", 3);
  CHECK("stat of the thread", pread(of_thread, text, sizeof(text), 0) > 0 && atoi(text) == thread_tid);
  CHECK("stat of the zombie", pread(of_zombie, text, sizeof(text), 0) > 0 && atoi(text) == zombie);
  for (size_t i = 0; i < FILES; i++) {
    bool directory = !files[i][0] || !strcmp(files[i], "task") || !strcmp(files[i], "fd") || !strcmp(files[i], "ns");
    if (!directory) CHECK("read of the dead one's %s", pread(of_reaped[i], text, sizeof(text), 0) <= 0, files[i]);
    else CHECK_EQ("lookup in the dead one's %s", -1, faccessat(of_reaped[i], "status", F_OK, 0), files[i]);
  }
  CHECK("read of the ended thread's stat", pread(of_ended[0], text, sizeof(text), 0) <= 0);
  CHECK_EQ("lookup in the ended thread's directory", -1, faccessat(of_ended[1], "status", F_OK, 0));
  tree_collect("child");
  tree_wait(child, 0), tree_wait(zombie, W_EXITCODE(1, 0));
  return check_finish();
}
