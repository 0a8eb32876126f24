/*
 * Processes that job control has stopped: by each of its signals, waited for or not, with threads, below a stopped
 * parent; and one that goes on again, with its parent not told yet. They stay as they are until they get SIGCONT,
 * and the parent's wait says what it would have said.
 */
#include "tree.h"

static volatile sig_atomic_t continued;
static void on_cont(int sig) {
  (void)sig;
  continued++;
}

static void *count(void *argument) {
  atomic_long *n = argument;
  for (;;) {
    atomic_fetch_add(n, 1);
    check_sleep_ms(5);
  }
  return NULL;
}

static const int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
#define STOPS 4

static pid_t stopped(const char *name, int sig, bool with_child) {
  pid_t pid = tree_fork("%s", name);
  if (pid == 0) {
    /* a group of its own inside the session: one that is no orphan, or the kernel would not stop it */
    MUST(setpgid(0, 0));
    signal(SIGCONT, on_cont);
    atomic_long counts[2] = {0};
    pthread_t ids[2];
    for (int i = 0; i < 2; i++) MUST0(pthread_create(&ids[i], NULL, count, &counts[i]));
    char below[64];
    snprintf(below, sizeof(below), "%s-below", name);
    pid_t child = with_child ? stopped(below, SIGSTOP, false) : 0;
    struct tree_place place = tree_place();
    tree_tell();
    kill(getpid(), sig);
    /* from here on it runs when it was told to go on, and not before */
    while (!continued) check_sleep_ms(1);
    CHECK("go exists before it goes on", tree_exists("go", ""));
    CHECK_EQ("SIGCONT seen", 1, continued);
    tree_check_place(place);
    for (int i = 0; i < 2; i++) {
      long before = atomic_load(&counts[i]);
      check_sleep_ms(60);
      CHECK("thread %d goes on", atomic_load(&counts[i]) > before, i);
    }
    if (child) {
      CHECK_EQ("state of the child", 'T', tree_state(child));
      kill(child, SIGCONT);
      tree_wait(child, W_EXITCODE(0, 0));
    }
    tree_report(0);
  }
  tree_await(name);
  tree_await_state(pid, 'T');
  return pid;
}

/** What waitid says of a child that has stopped or gone on. WNOHANG: -1 stands for nothing. */
static void expect(const char *what, pid_t pid, int options, int code, int status) {
  siginfo_t info;
  memset(&info, 0, sizeof(info));
  CHECK_EQ("%s: waitid", 0, waitid(P_PID, (id_t)pid, &info, options | WNOHANG), what);
  CHECK_EQ("%s: si_pid", code ? pid : 0, info.si_pid, what);
  CHECK_EQ("%s: si_code", code, info.si_code, what);
  CHECK_EQ("%s: si_status", status, info.si_status, what);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pid_t fresh[STOPS], told[STOPS];
  char names[2 * STOPS][64];
  for (int i = 0; i < STOPS; i++) {
    snprintf(names[i], sizeof(names[0]), "fresh-%d", i);
    snprintf(names[STOPS + i], sizeof(names[0]), "told-%d", i);
    fresh[i] = stopped(names[i], signals[i], false);
    told[i] = stopped(names[STOPS + i], signals[i], false);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)told[i], &info, WSTOPPED));
  }
  pid_t parent = stopped("parent", SIGSTOP, true);
  /* one that has gone on, of which nobody was told */
  pid_t again = tree_fork("again");
  if (again == 0) {
    signal(SIGCONT, on_cont);
    tree_tell();
    kill(getpid(), SIGSTOP);
    while (!continued) check_sleep_ms(1);
    tree_wait_go();
    /* a dead one has nothing to tell of its going on */
    while (!tree_exists("report-", "asked")) check_sleep_ms(1);
    tree_report(0);
  }
  tree_await("again");
  tree_await_state(again, 'T');
  kill(again, SIGCONT);
  siginfo_t info;
  MUST(waitid(P_PID, (id_t)again, &info, WCONTINUED | WNOWAIT));
  tree_await_state(again, 'S');
  check_ready();
  for (int i = 0; i < STOPS; i++) {
    CHECK_EQ("state of %s", 'T', tree_state(fresh[i]), names[i]);
    CHECK_EQ("state of %s", 'T', tree_state(told[i]), names[STOPS + i]);
    expect(names[i], fresh[i], WSTOPPED, CLD_STOPPED, signals[i]);
    expect(names[i], fresh[i], WSTOPPED, 0, 0);
    expect(names[STOPS + i], told[i], WSTOPPED, 0, 0);
  }
  CHECK_EQ("state of the parent", 'T', tree_state(parent));
  expect("again", again, WCONTINUED, CLD_CONTINUED, SIGCONT);
  expect("again", again, WCONTINUED, 0, 0);
  check_write_file("report-asked", "ok\n", 3);
  for (int i = 0; i < STOPS; i++) kill(fresh[i], SIGCONT), kill(told[i], SIGCONT);
  kill(parent, SIGCONT);
  for (int i = 0; i < 2 * STOPS; i++) {
    tree_collect(names[i]);
    tree_wait(i < STOPS ? fresh[i] : told[i - STOPS], W_EXITCODE(0, 0));
  }
  tree_collect("parent-below"), tree_collect("parent"), tree_collect("again");
  tree_wait(parent, W_EXITCODE(0, 0)), tree_wait(again, W_EXITCODE(0, 0));
  return check_finish();
}
