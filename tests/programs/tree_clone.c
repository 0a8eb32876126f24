/*
 * Resources that processes share by a flag of clone(2): tree_clone WORK_DIRECTORY KIND [siblings], one of files, fs,
 * sighand, vm, sysvsem, io. Four processes: the root, one that shares with it, one that shares with that one, one that
 * does not share. With `siblings` a child of the root has the resource in the root's stead, and the two that share it
 * are its siblings, by CLONE_PARENT. Compared by kcmp and by what the resource is for.
 */
#include "tree.h"
#include <sys/sem.h>
#include <sys/stat.h>

enum { VM = 1, FILES = 2, FS = 3, SIGHAND = 4, IO = 5, SYSVSEM = 6 };
static int kcmp_type;
static unsigned long flag;
static bool siblings;

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
  if (kcmp_type == VM) handled_by = 1;
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
    case VM: return handled_by == 1;
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
/** What the two that share are made with. */
static unsigned long sharing(void) {
  return flag | SIGCHLD | (shares_memory ? CLONE_VM : 0) | (siblings ? CLONE_PARENT : 0);
}
static int second(void *unused) {
  (void)unused;
  tree_clone(third, sharing(), NULL);
  char name[] = "settled-second", text[16];
  tree_await("third");
  check_write_file(name, text, (size_t)snprintf(text, sizeof(text), "%d\n", getpid()));
  tree_wait_go();
  act();
  check_write_file("report-acted", "ok\n", 3);
  for (;;) check_sleep_ms(1000);
  return 0;
}

static void await_act(void) {
  double end = check_seconds() + 10;
  while (!tree_exists("report-", "acted") && check_seconds() < end) check_sleep_ms(1);
}

/** Has the resource in the root's stead. */
static pid_t fork_holder(void) {
  pid_t holder = tree_fork("holder");
  if (holder == 0) {
    tree_clone(second, sharing(), NULL);
    tree_await("second");
    tree_settled();
    await_act();
    CHECK("what the sibling did is seen", acted());
    tree_leave_report();
    for (;;) check_sleep_ms(1000);
  }
  tree_await("holder");
  return holder;
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
               {"vm", VM, CLONE_VM},
               {"io", IO, CLONE_IO},
               {"sysvsem", SYSVSEM, CLONE_SYSVSEM}};
  for (size_t i = 0; argc >= 3 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (!strcmp(argv[2], kinds[i].name)) kcmp_type = kinds[i].type, flag = kinds[i].flag;
  if (!flag) return dprintf(2, "usage: tree_clone WORK_DIRECTORY files|fs|sighand|vm|io|sysvsem [siblings]\n"), 2;
  siblings = argc > 3;
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
    await_act();
    /* semaphores are everybody's; only the undoing is shared */
    if (kcmp_type != SYSVSEM) CHECK("the act of another is seen", !acted());
    CHECK_EQ("stat", 0, stat(".", &after));
    CHECK_EQ("working directory", before.st_ino, after.st_ino);
    tree_report(0);
  }
  tree_await("apart");
  pid_t holder = siblings ? fork_holder() : getpid();
  if (!siblings) tree_clone(second, sharing(), NULL);
  pid_t sharer = pid_of("second"), further = pid_of("third");
  MUST(same(holder, sharer) && same(holder, further) && same(sharer, further) && !same(holder, apart) ? 0 : -1);
  check_ready();
  int set = -1;
  if (kcmp_type == SYSVSEM) {
    char text[16];
    CHECK("semget", (set = semget(IPC_PRIVATE, 1, 0600)) >= 0);
    check_write_file("report-semaphores", text, (size_t)snprintf(text, sizeof(text), "%d\n", set));
  }
  CHECK("shared with the one", same(holder, sharer));
  CHECK("shared with the one it made", same(holder, further));
  CHECK("shared by the two", same(sharer, further));
  CHECK("not shared with the other child", !same(holder, apart));
  await_act();
  CHECK("what another did is seen", acted() == !siblings);
  if (siblings) {
    CHECK("not shared with the root", !same(holder, getpid()));
    tree_collect("holder");
    tree_end(holder);
  }
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
