/*
 * Parent-death signals that are handled: they are kept, and the end of the restore itself, which is the parent of
 * the program for a moment, does not send one.
 */
#include "check.h"
#include <signal.h>
#include <sys/prctl.h>

static volatile sig_atomic_t got;
static void on_signal(int sig) { got = sig; }

static atomic_int built;
static int thread_signal;
static void *run(void *unused) {
  MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
  atomic_store(&built, 1);
  check_wait_go();
  prctl(PR_GET_PDEATHSIG, &thread_signal);
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* whoever started this one may be about to end: its parent-to-be is what counts */
  char path[64];
  do check_sleep_ms(1), snprintf(path, sizeof(path), "/proc/%d/comm", getppid());
  while (!strcmp(check_proc(path, ""), "launch"));
  signal(SIGUSR1, on_signal);
  signal(SIGUSR2, on_signal);
  MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&built)) check_sleep_ms(1);
  check_ready();
  check_sleep_ms(200);
  int now = 0;
  prctl(PR_GET_PDEATHSIG, &now);
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("parent-death signal of the main thread", SIGUSR1, now);
  CHECK_EQ("parent-death signal of the other thread", SIGUSR2, thread_signal);
  CHECK_EQ("signal received", 0, got);
  return check_finish();
}
