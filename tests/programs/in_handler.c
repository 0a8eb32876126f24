/*
 * Inside signal handlers, nested, on an alternate stack: after the restore they return through the frames that the
 * kernel wrote, to registers, mask and floating point values as they were.
 */
#include "check.h"
#include <signal.h>
#include <ucontext.h>

static char alternate[1 << 16];
static volatile int depth, returned_from[3];
static sigset_t inside[2];

static void inner(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)info, (void)context;
  depth = 2;
  sigprocmask(SIG_SETMASK, NULL, &inside[1]);
  check_ready();
  returned_from[2] = 1;
}
static void outer(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)info, (void)context;
  depth = 1;
  sigprocmask(SIG_SETMASK, NULL, &inside[0]);
  volatile double value = 3.25;
  raise(SIGUSR2);
  if (value == 3.25) returned_from[1] = 1;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
  MUST(sigaltstack(&stack, NULL));
  struct sigaction action = {.sa_sigaction = outer, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaddset(&action.sa_mask, SIGWINCH);
  MUST(sigaction(SIGUSR1, &action, NULL));
  action.sa_sigaction = inner;
  sigaddset(&action.sa_mask, SIGURG);
  MUST(sigaction(SIGUSR2, &action, NULL));
  sigset_t before, after;
  sigemptyset(&before);
  sigaddset(&before, SIGPIPE);
  sigprocmask(SIG_SETMASK, &before, NULL);
  register double kept asm("xmm9") = 1234.5;
  asm volatile("" : "+x"(kept));
  pid_t pid = getpid();
  long result;
  asm volatile("syscall" : "=a"(result), "+x"(kept) : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1) : "rcx", "r11", "memory");
  asm volatile("" : "+x"(kept));
  double value = kept;

  CHECK_EQ("value of the interrupted call", 0, result);
  CHECK("a floating point register across the handlers (%g)", value == 1234.5, value);
  CHECK_EQ("depth reached", 2, depth);
  CHECK_EQ("the inner handler returned", 1, returned_from[2]);
  CHECK_EQ("the outer handler returned", 1, returned_from[1]);
  sigprocmask(SIG_SETMASK, NULL, &after);
  CHECK_EQ("mask after the handlers", 0, memcmp(&before, &after, 8));
  CHECK("mask inside the inner handler", sigismember(&inside[1], SIGURG) && sigismember(&inside[1], SIGUSR1) && sigismember(&inside[1], SIGPIPE));
  stack_t now;
  sigaltstack(NULL, &now);
  CHECK_EQ("alternate stack", (long)alternate, (long)now.ss_sp);
  CHECK_EQ("its flags", 0, now.ss_flags);
  return check_finish();
}
