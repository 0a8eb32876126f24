/* Syscall user dispatch of a thread: calls from outside the allowed range become SIGSYS while the selector says so. */
#include "check.h"
#include <signal.h>
#include <sys/prctl.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif
#define ALLOW 0
#define BLOCK 1

static volatile char selector = ALLOW;
static volatile int caught;
static atomic_int built;
static int caught_before, caught_after, answer_after;

static void on_call(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  selector = ALLOW;
  if (info->si_syscall == SYS_getpgid) caught++;
}

static void *run(void *unused) {
  (void)unused;
  /* nothing is allowed but what the selector allows: all calls come from outside an empty range */
  MUST(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector));
  selector = BLOCK;
  syscall(SYS_getpgid, 0);
  caught_before = caught;
  atomic_store(&built, 1);
  /* spins with calls blocked: whatever looks into the thread must not trip over it */
  selector = BLOCK;
  while (!atomic_load(&check_go_seen)) asm volatile("pause");
  syscall(SYS_getpgid, 0);
  caught_after = caught;
  selector = ALLOW;
  answer_after = (int)syscall(SYS_getpgid, 0);
  caught_after = caught;
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
  MUST(sigaction(SIGSYS, &action, NULL));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&built)) check_sleep_ms(1);
  if (caught_before != 1) check_die("user dispatch does not work here");
  check_ready();
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("calls caught after", 2, caught_after);
  CHECK_EQ("an allowed call", getpgrp(), answer_after);
  return check_finish();
}
