/*
 * Process trees: every member checks itself and leaves its findings in a file, so that reports need nothing but
 * what a single process needs.
 *
 *   pid_t child = tree_fork("child");
 *   if (child == 0) {
 *     ... build the state ...
 *     tree_settled();          // tells the root, returns once `go` exists
 *     ... compare ...          // CHECK_EQ(...)
 *     tree_report(0);          // writes the report, exits with the status
 *   }
 *   tree_await("child");       // by the root: the member has settled
 *   check_ready();
 *   tree_collect("child");     // by the root: takes over its report
 *   tree_wait(child, W_EXITCODE(0, 0));
 *
 * A member's name is unique in the tree. `settled-NAME` and `report-NAME` are files in the work directory.
 */
#ifndef TREE_H
#define TREE_H
#include "check.h"
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/** How long the root waits for what a member does at once unless something is wrong. */
#define TREE_PATIENCE 30

static char tree_name[64] CHECK_UNUSED = "root";

/** In a new process: it goes by this name, and has found nothing yet. */
CHECK_UNUSED static void tree_become(const char *name) {
  snprintf(tree_name, sizeof(tree_name), "%s", name);
  prctl(PR_SET_NAME, tree_name);
  check_used = 0;
  check_report[0] = 0;
}

CHECK_UNUSED __attribute__((format(printf, 1, 2))) static pid_t tree_fork(const char *format, ...) {
  char name[64];
  va_list list;
  va_start(list, format);
  vsnprintf(name, sizeof(name), format, list);
  va_end(list);
  pid_t pid = (pid_t)MUST(fork());
  if (pid == 0) tree_become(name);
  return pid;
}

/**
 * clone(2) with flags and the exit signal among them, on a stack of its own; the function runs in the new process.
 * Memory that is not shared may have only one user of the stack, so it is never freed.
 */
CHECK_UNUSED static pid_t tree_clone(int (*run)(void *), unsigned long flags, void *argument) {
  size_t size = 256 * 1024;
  char *stack = (char *)MUST(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return (pid_t)MUST(clone(run, stack + size, (int)flags, argument));
}

/** True once the file exists in the work directory. Uses nothing but the stack and access(2). */
CHECK_UNUSED static bool tree_exists(const char *prefix, const char *name) {
  char path[4300];
  snprintf(path, sizeof(path), "%s/%.31s%.63s", check_dir, prefix, name);
  return access(path, F_OK) == 0;
}

/** Waits for `go`; a member that nobody tells to go on ends by itself. */
CHECK_UNUSED static void tree_wait_go(void) {
  double end = check_seconds() + CHECK_SECONDS_TO_LIVE;
  while (!tree_exists("go", "")) {
    check_sleep_ms(5);
    if (check_seconds() > end) _exit(5);
  }
}

/** Tells the root that the state of this member is built. */
CHECK_UNUSED static void tree_tell(void) {
  char name[80], text[32];
  snprintf(name, sizeof(name), "settled-%s", tree_name);
  check_write_file(name, text, (size_t)snprintf(text, sizeof(text), "%d\n", getpid()));
}

/** Tells the root that the state of this member is built; returns once `go` exists. */
CHECK_UNUSED static void tree_settled(void) {
  tree_tell();
  tree_wait_go();
  atomic_store(&check_go_seen, 1);
}

/** Writes what this member has found. */
CHECK_UNUSED static void tree_leave_report(void) {
  char name[80];
  snprintf(name, sizeof(name), "report-%s", tree_name);
  if (!check_used) check_line("ok\n");
  check_write_file(name, check_report, check_used);
}

/** Writes what this member has found, and ends it. */
CHECK_UNUSED __attribute__((noreturn)) static void tree_report(int status) {
  tree_leave_report();
  _exit(status);
}

/** The first member that could not build its state ends the root, too, by the `result` that it wrote. */
CHECK_UNUSED static pid_t tree_await(const char *name) {
  double end = check_seconds() + TREE_PATIENCE;
  while (!tree_exists("settled-", name)) {
    if (tree_exists("result", "")) _exit(3);
    if (check_seconds() > end) check_die("member %s does not settle", name);
    check_sleep_ms(1);
  }
  char path[4300];
  snprintf(path, sizeof(path), "%s/settled-%.63s", check_dir, name);
  return atoi(check_proc(path, ""));
}

/** Takes the report of a member over, every line with the member's name before it. */
CHECK_UNUSED static void tree_collect(const char *name) {
  double end = check_seconds() + TREE_PATIENCE;
  while (!tree_exists("report-", name)) {
    if (check_seconds() > end) {
      check_line("%s: no report\n", name);
      return;
    }
    check_sleep_ms(1);
  }
  char path[4300], line[1024];
  snprintf(path, sizeof(path), "%s/report-%.63s", check_dir, name);
  FILE *file = fopen(path, "re");
  if (!file) {
    check_line("%s: the report cannot be read: %s\n", name, strerror(errno));
    return;
  }
  while (fgets(line, sizeof(line), file))
    if (strcmp(line, "ok\n") != 0) check_line("%s: %s", name, line);
  fclose(file);
}

/** Waits for a child and compares how it ended with a status of wait(2). Gives up on one that does not end. */
CHECK_UNUSED static void tree_wait(pid_t pid, int expected) {
  double end = check_seconds() + TREE_PATIENCE;
  int status = -1;
  pid_t got;
  while ((got = waitpid(pid, &status, WNOHANG | __WALL)) == 0 && check_seconds() < end) check_sleep_ms(1);
  if (got == 0) kill(pid, SIGKILL), waitpid(pid, NULL, __WALL);
  CHECK_EQ("waitpid(%d)", pid, got, pid);
  if (got == pid) CHECK_EQ("wait status of %d", expected, status, pid);
}

/** Ends a member that has nothing to say. */
CHECK_UNUSED static void tree_end(pid_t pid) {
  CHECK_EQ("kill(%d, SIGKILL)", 0, kill(pid, SIGKILL), pid);
  tree_wait(pid, SIGKILL);
}

/** The state letter of a task, 0 where it does not exist. */
CHECK_UNUSED static char tree_state(pid_t pid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/status", pid);
  const char *line = check_proc(path, "State:");
  return line[0] ? line[7] : 0;
}

CHECK_UNUSED static void tree_await_state(pid_t pid, char state) {
  double end = check_seconds() + TREE_PATIENCE;
  while (tree_state(pid) != state) {
    if (check_seconds() > end) check_die("task %d is %c and not %c", pid, tree_state(pid), state);
    check_sleep_ms(1);
  }
}

/** Who and where a process is; to be compared before and after. */
struct tree_place {
  pid_t pid, tid, parent, group, session;
};
CHECK_UNUSED static struct tree_place tree_place(void) {
  return (struct tree_place){getpid(), check_tid(), getppid(), getpgid(0), getsid(0)};
}
CHECK_UNUSED static void tree_check_place(struct tree_place before) {
  struct tree_place after = tree_place();
  CHECK_EQ("pid", before.pid, after.pid);
  CHECK_EQ("tid", before.tid, after.tid);
  /* that of the root is no part of the tree */
  if (strcmp(tree_name, "root") != 0) CHECK_EQ("parent", before.parent, after.parent);
  CHECK_EQ("process group", before.group, after.group);
  CHECK_EQ("session", before.session, after.session);
}
#endif
