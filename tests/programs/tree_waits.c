/*
 * Parents that wait: threads blocked in wait4 and waitid for one child, any child, a group, a stop and a continuing.
 * They go on waiting, and get what they waited for.
 */
#include "tree.h"

struct waiter {
  pthread_t id;
  pid_t tid, pid, got;
  atomic_int built;
  int kind, status, error;
  siginfo_t info;
};
enum { WAIT4, WAITID, GROUP, STOP, CONTINUE, KINDS };

static void *run(void *argument) {
  struct waiter *w = argument;
  w->tid = check_tid();
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  atomic_store(&w->built, 1);
  switch (w->kind) {
    case WAIT4: w->got = waitpid(w->pid, &w->status, 0); break;
    case WAITID: w->got = waitid(P_PID, (id_t)w->pid, &w->info, WEXITED); break;
    case GROUP: w->got = waitpid(-w->pid, &w->status, 0); break;
    case STOP: w->got = waitid(P_PID, (id_t)w->pid, &w->info, WSTOPPED); break;
    default: w->got = waitid(P_PID, (id_t)w->pid, &w->info, WCONTINUED);
  }
  w->error = w->got < 0 ? errno : 0;
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  static const char *const names[KINDS] = {"wait4", "waitid", "group", "stop", "continue"};
  struct waiter waiters[KINDS] = {0};
  for (int i = 0; i < KINDS; i++) {
    pid_t pid = tree_fork("%s", names[i]);
    if (pid == 0) {
      if (i == GROUP) MUST(setpgid(0, 0));
      tree_tell();
      if (i == CONTINUE) kill(getpid(), SIGSTOP);
      tree_wait_go();
      if (i == STOP) kill(getpid(), SIGSTOP);
      if (i <= GROUP) tree_report(i + 1);
      tree_leave_report();
      for (;;) check_sleep_ms(1000);
    }
    tree_await(names[i]);
    if (i == CONTINUE) {
      siginfo_t info;
      MUST(waitid(P_PID, (id_t)pid, &info, WSTOPPED));
    }
    waiters[i].pid = pid, waiters[i].kind = i;
    MUST0(pthread_create(&waiters[i].id, NULL, run, &waiters[i]));
    while (!atomic_load(&waiters[i].built)) check_sleep_ms(1);
    check_until_asleep(waiters[i].tid);
  }
  check_ready();
  kill(waiters[CONTINUE].pid, SIGCONT);
  const int codes[KINDS] = {0, CLD_EXITED, 0, CLD_STOPPED, CLD_CONTINUED}, statuses[KINDS] = {0, 2, 0, SIGSTOP, SIGCONT};
  for (int i = 0; i < KINDS; i++) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TREE_PATIENCE;
    if (pthread_timedjoin_np(waiters[i].id, NULL, &until)) {
      check_line("%s: the wait does not end\n", names[i]);
      continue;
    }
    CHECK_EQ("%s: error", 0, waiters[i].error, names[i]);
    bool by_id = i == WAITID || i == STOP || i == CONTINUE;
    CHECK_EQ("%s: value", by_id ? 0 : waiters[i].pid, waiters[i].got, names[i]);
    if (by_id) {
      CHECK_EQ("%s: si_pid", waiters[i].pid, waiters[i].info.si_pid, names[i]);
      CHECK_EQ("%s: si_code", codes[i], waiters[i].info.si_code, names[i]);
      CHECK_EQ("%s: si_status", statuses[i], waiters[i].info.si_status, names[i]);
    } else {
      CHECK_EQ("%s: status", W_EXITCODE(i + 1, 0), waiters[i].status, names[i]);
    }
  }
  tree_end(waiters[STOP].pid), tree_end(waiters[CONTINUE].pid);
  return check_finish();
}
