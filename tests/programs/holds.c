/*
 * Holds things that a dump may have to refuse: holds WORK_DIRECTORY KIND... Writes the descriptors that it holds,
 * one "KIND FD" to a line, to the file `held`; verifies afterwards that they are the same open files. A thread that
 * sleeps in pause() shows by its context switches whether the program was ever stopped; its id is in `sleeper`.
 */
#include "check.h"
#include <asm/ldt.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#define MAX 64
static struct {
  const char *kind;
  int fd;
  ino_t inode;
} held[MAX];
static int count;
static char path[4400];

static const char *in_dir(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  return path;
}
static void hold(const char *kind, int fd) {
  struct stat st;
  MUST(fd);
  MUST(fstat(fd, &st));
  held[count].kind = kind, held[count].fd = fd, held[count].inode = st.st_ino;
  count++;
}
static int file(const char *name) { return (int)MUST(open(in_dir(name), O_RDWR | O_CREAT, 0644)); }

/** A child in a namespace of its own, its pid in the file `child`; the value is 0 in the child. */
static pid_t child(unsigned long flags) {
  struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
  pid_t pid = (pid_t)MUST(syscall(SYS_clone3, &args, sizeof(args)));
  char text[16];
  if (pid) check_write_file("child", text, (size_t)snprintf(text, sizeof(text), "%d\n", pid));
  return pid;
}
__attribute__((noreturn)) static void end_with_test(void) {
  while (access(in_dir("go"), F_OK) != 0) check_sleep_ms(5);
  _exit(0);
}

static void build(const char *kind) {
  int pair[2];
  if (!strcmp(kind, "socketpair")) {
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    hold(kind, pair[0]), hold(kind, pair[1]);
  } else if (!strcmp(kind, "tcp")) {
    hold(kind, socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(held[count - 1].fd, (struct sockaddr *)&(struct sockaddr_in){.sin_family = AF_INET}, sizeof(struct sockaddr_in)));
    MUST(listen(held[count - 1].fd, 1));
  } else if (!strcmp(kind, "netlink")) {
    hold(kind, socket(AF_NETLINK, SOCK_RAW, 0));
  } else if (!strcmp(kind, "epoll")) {
    hold(kind, epoll_create1(0));
  } else if (!strcmp(kind, "eventfd")) {
    hold(kind, eventfd(3, 0));
  } else if (!strcmp(kind, "timerfd")) {
    hold(kind, timerfd_create(CLOCK_MONOTONIC, 0));
  } else if (!strcmp(kind, "signalfd")) {
    sigset_t set;
    sigemptyset(&set);
    hold(kind, signalfd(-1, &set, 0));
  } else if (!strcmp(kind, "inotify")) {
    hold(kind, inotify_init1(0));
  } else if (!strcmp(kind, "fanotify")) {
    hold(kind, fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
  } else if (!strcmp(kind, "memfd")) {
    hold(kind, memfd_create("held", 0));
  } else if (!strcmp(kind, "pty")) {
    MUST(openpty(&pair[0], &pair[1], NULL, NULL, NULL));
    hold(kind, pair[0]), hold(kind, pair[1]);
  } else if (!strcmp(kind, "io_uring")) {
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof(parameters));
    hold(kind, (int)syscall(SYS_io_uring_setup, 4, &parameters));
  } else if (!strcmp(kind, "userfaultfd")) {
    hold(kind, (int)syscall(SYS_userfaultfd, O_CLOEXEC));
  } else if (!strcmp(kind, "mqueue")) {
    snprintf(path, sizeof(path), "/ckpt-test-%d", getpid());
    hold(kind, mq_open(path, O_RDWR | O_CREAT, 0600, NULL));
    mq_unlink(path);
  } else if (!strcmp(kind, "deleted-file")) {
    hold(kind, file("deleted"));
    MUST(unlink(in_dir("deleted")));
  } else if (!strcmp(kind, "replaced-file")) {
    hold(kind, file("replaced"));
    MUST(unlink(in_dir("replaced")));
    close(file("replaced"));
  } else if (!strcmp(kind, "tmpfile")) {
    hold(kind, open(check_dir, O_TMPFILE | O_RDWR, 0600));
  } else if (!strcmp(kind, "proc-of-another")) {
    /* a file of a task that may be gone at the restore: that of the parent of this one */
    snprintf(path, sizeof(path), "/proc/%d/stat", getppid());
    hold(kind, open(path, O_RDONLY));
  } else if (!strcmp(kind, "child-holds")) {
    /* what is refused in a child; the root holds it no more */
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    if (child(0) == 0) end_with_test();
    close(pair[0]), close(pair[1]);
  } else if (!strcmp(kind, "child-in-pid-namespace")) {
    if (child(CLONE_NEWPID) == 0) end_with_test();
  } else if (!strcmp(kind, "child-in-mount-namespace")) {
    if (child(CLONE_NEWNS) == 0) end_with_test();
  } else if (!strcmp(kind, "traced-child")) {
    pid_t pid = child(0);
    if (pid == 0) end_with_test();
    MUST(ptrace(PTRACE_SEIZE, pid, 0, 0));
  } else if (!strcmp(kind, "pidfd-of-outside")) {
    hold(kind, (int)syscall(SYS_pidfd_open, 1, 0));
  } else if (!strcmp(kind, "deleted-mapping")) {
    int fd = file("mapped");
    MUST(ftruncate(fd, 8192));
    MUST(mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0));
    close(fd);
    MUST(unlink(in_dir("mapped")));
  } else if (!strcmp(kind, "memfd-mapping")) {
    int fd = (int)MUST(memfd_create("mapped", 0));
    MUST(ftruncate(fd, 8192));
    MUST(mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0));
    close(fd);
  } else if (!strcmp(kind, "aio")) {
    aio_context_t context = 0;
    MUST(syscall(SYS_io_setup, 4, &context));
  } else if (!strcmp(kind, "memory-policy")) {
    unsigned long nodes = 1;
    MUST(syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &nodes, 65));
  } else if (!strcmp(kind, "ldt")) {
    struct user_desc entry = {.entry_number = 3, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1, .limit_in_pages = 1};
    MUST(syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)));
  } else if (!strcmp(kind, "deleted-cwd")) {
    MUST(mkdir(in_dir("gone"), 0700));
    MUST(chdir(path));
    MUST(rmdir(path));
  } else if (!strcmp(kind, "lease")) {
    int fd = file("leased");
    hold(kind, fd);
    MUST(fcntl(fd, F_SETLEASE, F_WRLCK));
  } else if (!strcmp(kind, "flock")) {
    int fd = file("locked");
    hold(kind, fd);
    MUST(flock(fd, LOCK_EX));
  } else if (!strcmp(kind, "posix-lock")) {
    int fd = file("locked");
    hold(kind, fd);
    MUST(fcntl(fd, F_SETLK, (&(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10})));
  } else if (!strcmp(kind, "nothing")) {
    return;
  } else {
    check_die("no such kind: %s", kind);
  }
}

static atomic_int tid;
static void *run(void *unused) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  atomic_store(&tid, check_tid());
  for (;;) pause();
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (int i = 2; i < argc; i++) build(argv[i]);
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&tid)) check_sleep_ms(1);
  check_until_asleep(tid);
  char text[4096] = "";
  int n = 0;
  for (int i = 0; i < count; i++) n += snprintf(text + n, sizeof(text) - (size_t)n, "%s %d\n", held[i].kind, held[i].fd);
  check_write_file("held", text, (size_t)n);
  n = snprintf(text, sizeof(text), "%d\n", tid);
  check_write_file("sleeper", text, (size_t)n);

  check_ready();

  for (int i = 0; i < count; i++) {
    struct stat st = {0};
    CHECK_EQ("fstat of %s", 0, fstat(held[i].fd, &st), held[i].kind);
    CHECK_EQ("inode of %s", (long)held[i].inode, (long)st.st_ino, held[i].kind);
  }
  return check_finish();
}
