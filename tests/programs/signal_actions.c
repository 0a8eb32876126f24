/* The actions of all 64 signals: handler, flags, mask and restorer as the kernel keeps them; and that they work. */
#include "check.h"
#include <signal.h>

struct kernel_action {
  void *handler;
  unsigned long flags;
  void *restorer;
  uint64_t mask;
};

static int handled, handled_code, in_handler_mask;
static void on_signal(int sig, siginfo_t *info, void *context) {
  (void)context;
  sigset_t mask;
  handled = sig;
  handled_code = info->si_code;
  sigprocmask(SIG_SETMASK, NULL, &mask);
  in_handler_mask = sigismember(&mask, SIGURG) * 2 + sigismember(&mask, sig);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct kernel_action before[65], after;
  /* a real one, to learn the restorer of the C library */
  struct sigaction real = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
  sigemptyset(&real.sa_mask);
  sigaddset(&real.sa_mask, SIGURG);
  MUST(sigaction(SIGUSR1, &real, NULL));
  MUST(sigaction(SIGRTMAX, &real, NULL));
  real.sa_flags |= SA_NODEFER | SA_RESETHAND;
  MUST(sigaction(SIGUSR2, &real, NULL));
  for (int sig = 1; sig <= 64; sig++) {
    if (sig == SIGKILL || sig == SIGSTOP || sig == SIGUSR1 || sig == SIGUSR2 || sig == SIGRTMAX) continue;
    /* signals that this test may get stay harmless: SIGTERM and SIGINT end the program as always */
    if (sig == SIGTERM || sig == SIGINT) continue;
    struct kernel_action action = {
        .handler = sig % 3 == 0 ? SIG_IGN : sig % 3 == 1 ? SIG_DFL : (void *)(0x10000000ul + (unsigned long)sig),
        .flags = 0x04000000ul | (sig & 1 ? SA_RESTART : 0) | (sig & 2 ? SA_NODEFER : 0) | (sig & 4 ? SA_ONSTACK : 0) |
                 (sig & 8 ? SA_SIGINFO : 0) | (sig & 16 ? SA_RESETHAND : 0) | (sig & 32 ? 0x800 : 0) |
                 (sig == SIGCHLD ? SA_NOCLDSTOP | SA_NOCLDWAIT : 0),
        .restorer = (void *)(0x20000000ul + (unsigned long)sig),
        .mask = 0x123456789abcdefull * (uint64_t)sig,
    };
    if (sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGABRT) action.handler = SIG_DFL;
    MUST(syscall(SYS_rt_sigaction, sig, &action, NULL, 8));
  }
  for (int sig = 1; sig <= 64; sig++) MUST(syscall(SYS_rt_sigaction, sig, NULL, &before[sig], 8));

  check_ready();

  for (int sig = 1; sig <= 64; sig++) {
    MUST(syscall(SYS_rt_sigaction, sig, NULL, &after, 8));
    CHECK_EQ("handler of signal %d", (long)before[sig].handler, (long)after.handler, sig);
    CHECK_EQ("flags of signal %d", before[sig].flags, after.flags, sig);
    CHECK_EQ("restorer of signal %d", (long)before[sig].restorer, (long)after.restorer, sig);
    CHECK_EQ("mask of signal %d", before[sig].mask, after.mask, sig);
  }
  raise(SIGUSR1);
  CHECK_EQ("signal handled", SIGUSR1, handled);
  CHECK_EQ("code seen by the handler", SI_TKILL, handled_code);
  CHECK_EQ("mask inside the handler", 3, in_handler_mask);
  raise(SIGRTMAX);
  CHECK_EQ("real-time signal handled", SIGRTMAX, handled);
  raise(SIGUSR2);
  CHECK_EQ("signal with SA_NODEFER handled", SIGUSR2, handled);
  CHECK_EQ("mask inside a handler with SA_NODEFER", 2, in_handler_mask);
  struct sigaction now;
  sigaction(SIGUSR2, NULL, &now);
  CHECK("SA_RESETHAND took effect", now.sa_handler == SIG_DFL);
  return check_finish();
}
