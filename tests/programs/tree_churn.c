/*
 * A tree that forks and exits all the time: tree_churn WORK_DIRECTORY [SLEEPERS THREADS]. Workers make children that end at once, that
 * have children, that die by signals, that lose their parents, that go to sessions of their own, with threads; each
 * end is waited for and compared. The workers count their rounds in a shared file, `progress`. Sleepers, the first of
 * them with so many further threads, make it long to look at the tree.
 */
#include "tree.h"

#define WORKERS 4
struct progress {
  _Atomic uint64_t rounds[WORKERS];
};
static struct progress *progress;
static char trouble[512];
static uint32_t pattern[4096];

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(trouble, sizeof(trouble), format, list);
  va_end(list);
  check_line("%s\n", trouble);
  tree_report(1);
}
/** What fork has copied is what this worker had. */
static int memory_right(uint32_t number) {
  for (int i = 0; i < 4096; i++)
    if (pattern[i] != number * 4096 + (uint32_t)i) return 0;
  return 1;
}
static void *nothing(void *argument) { return argument; }

/** One end; the value is the wait status that the parent must see. */
static int end(uint64_t round, uint32_t number) {
  if (!memory_right(number)) _exit(250);
  switch (round % 6) {
    case 0: _exit((int)(round % 200));
    case 1: {
      /* a child of its own, waited for */
      pid_t pid = fork();
      if (pid == 0) _exit(memory_right(number) ? 3 : 251);
      int status = 0;
      if (pid < 0 || waitpid(pid, &status, 0) != pid || status != W_EXITCODE(3, 0)) _exit(252);
      _exit((int)(round % 200));
    }
    case 2: kill(getpid(), SIGKILL), _exit(253);
    case 3: {
      /* an orphan, for the root to reap */
      pid_t pid = fork();
      if (pid == 0) check_sleep_ms(1), _exit(memory_right(number) ? 77 : 251);
      _exit((int)(round % 200));
    }
    case 4: {
      setsid();
      pthread_t id;
      if (pthread_create(&id, NULL, nothing, NULL) || pthread_join(id, NULL)) _exit(254);
      _exit((int)(round % 200));
    }
    default: raise(SIGTERM), _exit(253);
  }
}
__attribute__((noreturn)) static void work(uint32_t number) {
  for (int i = 0; i < 4096; i++) pattern[i] = number * 4096 + (uint32_t)i;
  for (uint64_t round = 0; !tree_exists("go", ""); round++) {
    pid_t pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    if (pid == 0) end(round, number);
    int expected = round % 6 == 2   ? SIGKILL
                   : round % 6 == 5 ? SIGTERM
                                    : W_EXITCODE((int)(round % 200), 0);
    int status = -1;
    pid_t got = waitpid(pid, &status, 0);
    if (got != pid) fail("waitpid(%d): %d, %s", pid, got, strerror(errno));
    if (status != expected) fail("round %lu: status %#x and not %#x", round, status, expected);
    progress->rounds[number]++;
    if (round % 4 == 0) check_sleep_ms(1);
  }
  tree_report(0);
}

static void *sleep_on(void *unused) {
  for (;;) check_sleep_ms(100000);
  return unused;
}
__attribute__((noreturn)) static void sleeper(int threads) {
  pthread_attr_t small;
  pthread_t id;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 16384);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&id, &small, sleep_on, NULL)) _exit(254);
  tree_tell();
  sleep_on(NULL);
  _exit(255);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int sleepers = argc > 3 ? atoi(argv[2]) : 0, threads = argc > 3 ? atoi(argv[3]) : 0;
  pid_t *sleeping = (pid_t *)calloc((size_t)sleepers + 1, sizeof(pid_t));
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  char path[4300], name[64];
  snprintf(path, sizeof(path), "%s/progress", check_dir);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  MUST(ftruncate(fd, 4096));
  progress = (struct progress *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  close(fd);
  for (int i = 0; i < sleepers; i++) {
    sleeping[i] = tree_fork("sleeper-%d", i);
    if (sleeping[i] == 0) sleeper(i == 0 ? threads : 0);
  }
  for (int i = 0; i < sleepers; i++) {
    snprintf(name, sizeof(name), "sleeper-%d", i);
    tree_await(name);
  }
  pid_t workers[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    workers[i] = tree_fork("worker-%d", i);
    if (workers[i] == 0) work((uint32_t)i);
    while (!progress->rounds[i]) check_sleep_ms(1);
  }
  check_write_file("ready", "\n", 1);
  double until = check_seconds() + CHECK_SECONDS_TO_LIVE;
  int left = WORKERS, status;
  while (left > 0 && check_seconds() < until) {
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid == 0) {
      check_sleep_ms(1);
      continue;
    }
    if (pid < 0) {
      check_line("waitpid: %s with %d workers left\n", strerror(errno), left);
      break;
    }
    bool worker = false;
    for (int i = 0; i < WORKERS; i++) worker = worker || pid == workers[i];
    left -= worker;
    CHECK_EQ(worker ? "status of a worker" : "status of an orphan", worker ? 0 : W_EXITCODE(77, 0), status);
  }
  CHECK_EQ("workers that did not end", 0, left);
  for (int i = 0; i < sleepers; i++) tree_end(sleeping[i]);
  while (waitpid(-1, NULL, 0) > 0) continue;
  for (int i = 0; i < WORKERS; i++) {
    snprintf(name, sizeof(name), "worker-%d", i);
    tree_collect(name);
  }
  return check_finish();
}
