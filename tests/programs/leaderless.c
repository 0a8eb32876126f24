/*
 * The main thread has ended while others go on: its entry stays as a zombie and leads the process. What the process has
 * as a whole is theirs now.
 */
#include "check.h"
#include <signal.h>
#include <sys/prctl.h>

static pthread_t main_thread;
static atomic_long count;
static volatile sig_atomic_t alarmed;

static void on_alarm(int sig) {
  (void)sig;
  alarmed++;
}

static void *count_up(void *unused) {
  for (;;) {
    atomic_fetch_add(&count, 1);
    check_sleep_ms(5);
  }
  return unused;
}

static void *run(void *unused) {
  pthread_join(main_thread, NULL);
  pid_t pid = getpid(), tid = check_tid();
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/task/%d/status", pid);
  while (strncmp(check_proc(path, "State:"), "State:\tZ", 8)) check_sleep_ms(1);
  int ends[2];
  MUST0(pipe(ends));
  MUST(write(ends[1], "kept", 4));
  struct sigaction action = {.sa_handler = on_alarm};
  MUST0(sigaction(SIGUSR1, &action, NULL));
  /* one for the process that waits until somebody lets it in */
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  MUST0(sigqueue(pid, SIGUSR2, (union sigval){.sival_int = 77}));
  check_ready();
  CHECK_EQ("process id", pid, getpid());
  CHECK_EQ("thread id", tid, check_tid());
  CHECK("another thread than the leader", tid != pid);
  CHECK_STRING("state of the leader", "State:\tZ (zombie)", check_proc(path, "State:"));
  CHECK_STRING("name of the leader", "Name:\tthe-leader", check_proc(path, "Name:"));
  char kept[5] = "";
  CHECK_EQ("bytes in the pipe", 4, read(ends[0], kept, 4));
  CHECK_STRING("what was in the pipe", "kept", kept);
  siginfo_t info = {0};
  CHECK_EQ("the signal that waits", SIGUSR2, sigtimedwait(&set, &info, &(struct timespec){0}));
  CHECK_EQ("its value", 77, info.si_value.sival_int);
  MUST0(kill(pid, SIGUSR1));
  for (int i = 0; i < 1000 && !alarmed; i++) check_sleep_ms(1);
  CHECK_EQ("a signal to the process", 1, alarmed);
  long before = atomic_load(&count);
  check_sleep_ms(60);
  CHECK("the other thread goes on", atomic_load(&count) > before);
  exit(check_finish());
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  main_thread = pthread_self();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  MUST0(pthread_sigmask(SIG_BLOCK, &set, NULL));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, count_up, NULL));
  MUST0(pthread_create(&id, NULL, run, NULL));
  MUST0(prctl(PR_SET_NAME, "the-leader"));
  pthread_exit(NULL);
}
