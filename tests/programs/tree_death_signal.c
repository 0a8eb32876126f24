/*
 * Parent-death signals: kept, none comes from the restore, and when the parent really ends, it comes. One of them
 * kills; one is of a child whose parent has died already; one of a process that has changed its user.
 */
#include "tree.h"

static volatile sig_atomic_t got;
static void on_signal(int sig) { got = sig; }
static void on_info(int sig, siginfo_t *info, void *context) {
  (void)context;
  got = sig + (info->si_code << 8);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  MUST(sigaction(SIGUSR1, &(struct sigaction){.sa_sigaction = on_info, .sa_flags = SA_SIGINFO}, NULL));
  MUST(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_signal}, NULL));
  pid_t parent = tree_fork("parent");
  if (parent == 0) {
    pid_t handler = tree_fork("handler");
    if (handler == 0) {
      MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
      tree_settled();
      int now = 0;
      prctl(PR_GET_PDEATHSIG, &now);
      CHECK_EQ("parent-death signal", SIGUSR1, now);
      CHECK_EQ("signal before the death", 0, got);
      check_write_file("report-handler-checked", "ok\n", 3);
      for (int i = 0; i < 5000 && !got; i++) check_sleep_ms(1);
      CHECK_EQ("signal after the death", SIGUSR1 + (SI_USER << 8), got);
      tree_report(0);
    }
    tree_await("handler");
    if (tree_fork("victim") == 0) {
      MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
      tree_settled();
      for (;;) check_sleep_ms(1000);
    }
    tree_await("victim");
    if (tree_fork("nobody") == 0) {
      MUST(setgid(65534)), MUST(setuid(65534));
      MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
      MUST(prctl(PR_SET_DUMPABLE, 1));
      tree_settled();
      int now = 0;
      prctl(PR_GET_PDEATHSIG, &now);
      CHECK_EQ("parent-death signal", SIGUSR2, now);
      CHECK_EQ("signal before the death", 0, got);
      tree_report(0);
    }
    tree_await("nobody");
    tree_settled();
    while (!tree_exists("report-", "handler-checked") || !tree_exists("report-", "nobody")) check_sleep_ms(1);
    tree_report(0);
  }
  tree_await("parent");
  pid_t dead = (pid_t)MUST(fork()), orphan;
  if (dead == 0) {
    dead = getpid();
    orphan = tree_fork("orphan");
    if (orphan == 0) {
      MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
      check_write_file("settled-to-die", "\n", 1);
      /* the new parent is seen before the signal comes */
      while (getppid() == dead) check_sleep_ms(1);
      for (int i = 0; i < 5000 && !got; i++) check_sleep_ms(1);
      if (got != SIGUSR2) check_die("no signal when the parent ended");
      got = 0;
      tree_settled();
      int now = 0;
      prctl(PR_GET_PDEATHSIG, &now);
      CHECK_EQ("parent-death signal", SIGUSR2, now);
      CHECK_EQ("signal", 0, got);
      tree_report(0);
    }
    tree_await("to-die");
    _exit(0);
  }
  MUST(waitpid(dead, NULL, 0));
  orphan = tree_await("orphan");
  pid_t victim = tree_await("victim"), handler = tree_await("handler");
  check_ready();
  tree_collect("parent"), tree_collect("nobody"), tree_collect("orphan");
  tree_wait(parent, 0), tree_wait(orphan, 0);
  tree_collect("handler");
  tree_wait(handler, 0), tree_wait(victim, SIGKILL);
  while (waitpid(-1, NULL, 0) > 0) continue;
  return check_finish();
}
