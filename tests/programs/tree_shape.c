/*
 * Depth and width: tree_shape WORK_DIRECTORY DEPTH WIDTH THREADS. A chain of DEPTH processes, each with WIDTH further
 * children and THREADS threads and an open file; every task compares its ids, every process reaps its own.
 */
#include "tree.h"

#define MAX 64
static int depth, width, threads;

struct thread {
  pthread_t id;
  pid_t tid, now;
  atomic_int built;
};
static void *run(void *argument) {
  struct thread *self = argument;
  self->tid = check_tid();
  atomic_store(&self->built, 1);
  check_wait_go();
  self->now = check_tid();
  return NULL;
}

/** A process of the tree: builds what is below it, waits, verifies. */
static void member(int level, bool leaf) {
  pid_t children[MAX];
  char names[MAX][64];
  int count = 0;
  if (!leaf) {
    for (int i = 0; i < width; i++, count++) {
      snprintf(names[count], sizeof(names[0]), "%d.%d", level, i);
      children[count] = tree_fork("%s", names[count]);
      if (children[count] == 0) member(level + 1, true);
    }
    if (level < depth) {
      snprintf(names[count], sizeof(names[0]), "%d", level + 1);
      children[count] = tree_fork("%s", names[count]);
      if (children[count] == 0) member(level + 1, false);
      count++;
    }
  }
  struct thread thread[MAX] = {0};
  for (int i = 0; i < threads; i++) {
    MUST0(pthread_create(&thread[i].id, NULL, run, &thread[i]));
    while (!atomic_load(&thread[i].built)) check_sleep_ms(1);
  }
  for (int i = 0; i < count; i++) tree_await(names[i]);
  char path[4300];
  snprintf(path, sizeof(path), "%s/file-%s", check_dir, tree_name);
  int file = (int)MUST(open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  char pattern[8192];
  check_fill(pattern, sizeof(pattern), (uint64_t)getpid());
  struct tree_place place = tree_place();
  if (level == 0) check_ready();
  else tree_settled();
  tree_check_place(place);
  check_filled("memory", pattern, sizeof(pattern), (uint64_t)getpid());
  CHECK_EQ("flags of the open file", O_RDWR | O_APPEND, fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND));
  for (int i = 0; i < threads; i++) {
    MUST0(pthread_join(thread[i].id, NULL));
    CHECK_EQ("id of thread %d", thread[i].tid, thread[i].now, i);
  }
  for (int i = 0; i < count; i++) {
    tree_collect(names[i]);
    tree_wait(children[i], W_EXITCODE(i % 128, 0));
  }
  if (level == 0) return;
  /* the number among its siblings */
  const char *dot = strchr(tree_name, '.');
  tree_report((dot ? atoi(dot + 1) : width) % 128);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc < 5) return 2;
  depth = atoi(argv[2]), width = atoi(argv[3]), threads = atoi(argv[4]);
  if (width >= MAX - 1 || threads >= MAX) return 2;
  member(0, false);
  return check_finish();
}
