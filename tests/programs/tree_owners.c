/*
 * Who is told by a descriptor (F_SETOWN, F_SETOWN_EX, F_SETSIG): a process of the tree, a thread of it, a process
 * group of it, one that is dead, one's own.
 */
#include "tree.h"

enum { PROCESS, GROUP, THREAD, ZOMBIE, SELF, KINDS };
static const char *const kinds[KINDS] = {"process", "group", "thread", "zombie", "self"};
static pid_t thread_tid;
static atomic_int thread_ready;
static void *run(void *unused) {
  (void)unused;
  thread_tid = check_tid();
  atomic_store(&thread_ready, 1);
  for (;;) check_sleep_ms(1000);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pthread_t id;
  pid_t child = tree_fork("child"), zombie;
  if (child == 0) {
    MUST(setpgid(0, 0));
    MUST0(pthread_create(&id, NULL, run, NULL));
    while (!atomic_load(&thread_ready)) check_sleep_ms(1);
    char text[16];
    check_write_file("thread", text, (size_t)snprintf(text, sizeof(text), "%d\n", thread_tid));
    tree_settled();
    // the thread has to be there while the root asks about it
    while (!tree_exists("report-", "looked")) check_sleep_ms(1);
    tree_report(0);
  }
  tree_await("child");
  char path[4300];
  snprintf(path, sizeof(path), "%s/thread", check_dir);
  thread_tid = atoi(check_proc(path, ""));
  zombie = (pid_t)MUST(fork());
  if (zombie == 0) _exit(0);
  tree_await_state(zombie, 'Z');
  const struct f_owner_ex owners[KINDS] = {{F_OWNER_PID, child}, {F_OWNER_PGRP, child}, {F_OWNER_TID, thread_tid},
                                           {F_OWNER_PID, zombie}, {F_OWNER_PID, getpid()}};
  int fds[KINDS];
  for (int i = 0; i < KINDS; i++) {
    snprintf(path, sizeof(path), "%s/owned-%s", check_dir, kinds[i]);
    fds[i] = (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
    MUST(fcntl(fds[i], F_SETOWN_EX, &owners[i]));
    MUST(fcntl(fds[i], F_SETSIG, SIGRTMIN + i));
  }
  check_ready();
  for (int i = 0; i < KINDS; i++) {
    struct f_owner_ex now = {0};
    CHECK_EQ("F_GETOWN_EX of %s", 0, fcntl(fds[i], F_GETOWN_EX, &now), kinds[i]);
    CHECK_EQ("type of owner of %s", owners[i].type, now.type, kinds[i]);
    CHECK_EQ("owner of %s", owners[i].pid, now.pid, kinds[i]);
    CHECK_EQ("signal of %s", SIGRTMIN + i, fcntl(fds[i], F_GETSIG), kinds[i]);
  }
  check_write_file("report-looked", "ok\n", 3);
  tree_collect("child");
  tree_wait(child, 0), tree_wait(zombie, 0);
  return check_finish();
}
