/*
 * Resources that processes share by a flag of clone(2): tree_clone WORK_DIRECTORY KIND, one of files, fs, sighand,
 * sysvsem, io. Four processes: the root, one that shares with it, one that shares with that one, one that does not
 * share. Compared by kcmp and by what the resource is for.
 */
#include "tree.h"
#include <sys/sem.h>
#include <sys/stat.h>

enum { FILES = 2, FS = 3, SIGHAND = 4, IO = 5, SYSVSEM = 6 };
static int kcmp_type;
static unsigned long flag;

/** Made by the root once `go` exists: what a list of undoings has in it, the kernel tells nobody. */
static int semaphores(void) {
  char path[4300];
  snprintf(path, sizeof(path), "%s/report-semaphores", check_dir);
  while (access(path, F_OK)) check_sleep_ms(1);
  return atoi(check_proc(path, ""));
}

static bool same(pid_t a, pid_t b) { return syscall(SYS_kcmp, a, b, kcmp_type, 0, 0) == 0; }

/** Pids of the members. In a file, for memory may be shared or not. */
static pid_t pid_of(const char *name) { return tree_await(name); }

/* Processes that share memory (CLONE_SIGHAND needs it) have one check_report; they leave no findings of their own. */
static bool shares_memory;
static volatile int handled_by;
static void on_signal(int sig) { handled_by = sig; }

static void act(void) {
  if (kcmp_type == FILES) MUST(dup2(open("/dev/zero", O_RDONLY), 700));
  if (kcmp_type == FS) {
    MUST(chdir("/proc"));
    umask(0123);
  }
  if (kcmp_type == SIGHAND) signal(SIGUSR1, on_signal);
  if (kcmp_type == SYSVSEM) MUST(semop(semaphores(), &(struct sembuf){0, 3, SEM_UNDO}, 1));
  if (kcmp_type == IO) MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3));
}
/** Whether the act of another one is seen here. */
static bool acted(void) {
  char cwd[4096] = "";
  struct sigaction action = {0};
  switch (kcmp_type) {
    case FILES: return fcntl(700, F_GETFD) >= 0;
    case FS: return getcwd(cwd, sizeof(cwd)) && !strcmp(cwd, "/proc");
    case SIGHAND: return !sigaction(SIGUSR1, NULL, &action) && action.sa_handler == on_signal;
    case SYSVSEM: return semctl(semaphores(), 0, GETVAL) == 3;
    default: return syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 3);
  }
}

/* with CLONE_VM both go through here on stacks of their own */
static int third(void *unused) {
  (void)unused;
  char name[] = "settled-third", text[16];
  check_write_file(name, text, (size_t)snprintf(text, sizeof(text), "%d\n", getpid()));
  tree_wait_go();
  /* until told by a signal that everything was seen */
  for (;;) check_sleep_ms(1000);
  return 0;
}
static int second(void *unused) {
  (void)unused;
  tree_clone(third, flag | SIGCHLD | (shares_memory ? CLONE_VM : 0), NULL);
  char name[] = "settled-second", text[16];
  tree_await("third");
  check_write_file(name, text, (size_t)snprintf(text, sizeof(text), "%d\n", getpid()));
  tree_wait_go();
  act();
  check_write_file("report-acted", "ok\n", 3);
  for (;;) check_sleep_ms(1000);
  return 0;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  static const struct {
    const char *name;
    int type;
    unsigned long flag;
  } kinds[] = {{"files", FILES, CLONE_FILES},
               {"fs", FS, CLONE_FS},
               {"sighand", SIGHAND, CLONE_SIGHAND},
               {"io", IO, CLONE_IO},
               {"sysvsem", SYSVSEM, CLONE_SYSVSEM}};
  for (size_t i = 0; argc == 3 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (!strcmp(argv[2], kinds[i].name)) kcmp_type = kinds[i].type, flag = kinds[i].flag;
  if (!flag) return dprintf(2, "usage: tree_clone WORK_DIRECTORY files|fs|sighand|io|sysvsem\n"), 2;
  shares_memory = kcmp_type == SIGHAND;
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  /* there is an io context to share only once someone has a priority */
  if (kcmp_type == IO) MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 5));
  pid_t apart = tree_fork("apart");
  if (apart == 0) {
    struct stat before, after;
    MUST(stat(".", &before));
    tree_settled();
    tree_await("second");
    double end = check_seconds() + 10;
    while (!tree_exists("report-", "acted") && check_seconds() < end) check_sleep_ms(1);
    /* semaphores are everybody's; only the undoing is shared */
    if (kcmp_type != SYSVSEM) CHECK("the act of another is seen", !acted());
    CHECK_EQ("stat", 0, stat(".", &after));
    CHECK_EQ("working directory", before.st_ino, after.st_ino);
    tree_report(0);
  }
  tree_await("apart");
  pid_t child = tree_clone(second, flag | SIGCHLD | (shares_memory ? CLONE_VM : 0), NULL);
  pid_t sharer = pid_of("second"), further = pid_of("third"), self = getpid();
  MUST(child == sharer && same(self, sharer) && same(self, further) && same(sharer, further) && !same(self, apart) ? 0 : -1);
  check_ready();
  int set = -1;
  if (kcmp_type == SYSVSEM) {
    char text[16];
    CHECK("semget", (set = semget(IPC_PRIVATE, 1, 0600)) >= 0);
    check_write_file("report-semaphores", text, (size_t)snprintf(text, sizeof(text), "%d\n", set));
  }
  CHECK("shared with the child", same(self, sharer));
  CHECK("shared with its child", same(self, further));
  CHECK("shared by the two", same(sharer, further));
  CHECK("not shared with the other child", !same(self, apart));
  double end = check_seconds() + 10;
  while (!tree_exists("report-", "acted") && check_seconds() < end) check_sleep_ms(1);
  CHECK("what the child did is seen", acted());
  tree_collect("apart");
  tree_wait(apart, W_EXITCODE(0, 0));
  tree_end(sharer), tree_end(further);
  if (kcmp_type == SYSVSEM) {
    /* what the other has done is undone when the last of those that share the list leaves it: this process */
    CHECK_EQ("semaphore after the end of the others", 3, semctl(set, 0, GETVAL));
    CHECK_EQ("unshare", 0, syscall(SYS_unshare, CLONE_SYSVSEM));
    CHECK_EQ("semaphore after the undoing", 0, semctl(set, 0, GETVAL));
    semctl(set, 0, IPC_RMID);
  }
  return check_finish();
}
