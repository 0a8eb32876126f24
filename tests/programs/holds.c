/*
 * Holds things that a dump may have to refuse: holds WORK_DIRECTORY KIND... Writes the descriptors that it holds,
 * one "KIND FD" to a line, to the file `held`; verifies afterwards that they are the same open files. A thread that
 * sleeps in pause() shows by its context switches whether the program was ever stopped; its id is in `sleeper`.
 */
#include "check.h"
#include <asm/ldt.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

/** One that no other thread may use. */
static void *make_ring_of_thread(void *unused) {
  (void)unused;
  struct io_uring_params parameters = {.flags = IORING_SETUP_SINGLE_ISSUER};
  return (void *)MUST(syscall(SYS_io_uring_setup, 4, &parameters));
}

static void build(const char *kind) {
  int pair[2];
  if (!strcmp(kind, "tcp")) {
    /* a connection: both of its ends */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int listener = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(listener, (struct sockaddr *)&address, length));
    MUST(listen(listener, 1));
    MUST(getsockname(listener, (struct sockaddr *)&address, &length));
    MUST(connect(client, (struct sockaddr *)&address, length));
    hold(kind, client), hold(kind, (int)MUST(accept(listener, NULL, NULL)));
    close(listener);
  } else if (!strcmp(kind, "vsock")) {
    hold(kind, socket(AF_VSOCK, SOCK_STREAM, 0));
  } else if (!strcmp(kind, "fanout-program")) {
    struct sock_filter code[] = {{BPF_RET | BPF_K, 0, 0, 0}};
    struct sock_fprog program = {1, code};
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = 1};
    int fd = (int)MUST(socket(AF_PACKET, SOCK_RAW, 0)), group = PACKET_FANOUT_CBPF << 16 | (getpid() & 0xffff);
    MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    MUST(setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)));
    MUST(setsockopt(fd, SOL_PACKET, PACKET_FANOUT_DATA, &program, sizeof(program)));
    hold(kind, fd);
  } else if (!strcmp(kind, "fanotify-permission")) {
    int fd = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
    hold(kind, fd);
    close((int)MUST(open(in_dir("guarded"), O_RDWR | O_CREAT, 0644)));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, path));
  } else if (!strcmp(kind, "io_uring-of-ended-thread")) {
    pthread_t thread;
    void *fd;
    MUST0(pthread_create(&thread, NULL, make_ring_of_thread, NULL));
    MUST0(pthread_join(thread, &fd));
    hold(kind, (int)(intptr_t)fd);
  } else if (!strcmp(kind, "unattached-tun")) {
    hold(kind, open("/dev/net/tun", O_RDWR));
  } else if (!strcmp(kind, "userfaultfd")) {
    hold(kind, (int)syscall(SYS_userfaultfd, O_CLOEXEC));
  } else if (!strcmp(kind, "mqueue")) {
    /* somebody is to be told of the next message */
    snprintf(path, sizeof(path), "/ckpt-test-%d", getpid());
    hold(kind, mq_open(path, O_RDWR | O_CREAT, 0600, NULL));
    mq_unlink(path);
    MUST(mq_notify(held[count - 1].fd, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}));
  } else if (!strcmp(kind, "perf")) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attributes), .config = PERF_COUNT_SW_CPU_CLOCK};
    hold(kind, (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
  } else if (!strcmp(kind, "landlock")) {
    uint64_t handled = 1;
    hold(kind, (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0));
  } else if (!strcmp(kind, "secret-memory")) {
    hold(kind, (int)syscall(SYS_memfd_secret, 0));
  } else if (!strcmp(kind, "bpf-program")) {
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uint64_t)code, .insn_cnt = 2, .license = (uint64_t) "GPL"};
    hold(kind, (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
  } else if (!strcmp(kind, "reuseport-ebpf")) {
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uint64_t)code, .insn_cnt = 2, .license = (uint64_t) "GPL"};
    int program = (int)MUST(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
    MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof(program)));
    close(program);
    hold(kind, fd);
  } else if (!strcmp(kind, "bpf-link")) {
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT, .insns = (uint64_t)code, .insn_cnt = 2, .license = (uint64_t) "GPL"};
    int program = (int)MUST(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
    memset(&attributes, 0, sizeof(attributes));
    attributes.raw_tracepoint.name = (uint64_t) "sys_enter", attributes.raw_tracepoint.prog_fd = (uint32_t)program;
    hold(kind, (int)syscall(SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, &attributes, sizeof(attributes)));
    close(program);
  } else if (!strcmp(kind, "btf")) {
    /* one type, called "int" */
    struct {
      struct btf_header header;
      struct btf_type type;
      uint32_t bits;
      char names[8];
    } types = {.header = {.magic = 0xeb9f, .version = 1, .hdr_len = sizeof(types.header)}, .bits = 32, .names = "\0int"};
    types.header.type_len = types.header.str_off = sizeof(types.type) + sizeof(types.bits), types.header.str_len = 5;
    types.type = (struct btf_type){.name_off = 1, .info = BTF_KIND_INT << 24, .size = 4};
    union bpf_attr attributes = {.btf = (uint64_t)&types, .btf_size = sizeof(types) - 3};
    hold(kind, (int)syscall(SYS_bpf, BPF_BTF_LOAD, &attributes, sizeof(attributes)));
  } else if (!strcmp(kind, "epoll-of-outside")) {
    /* what it watches is open in a process that has left the tree, and nowhere else */
    int epoll = (int)MUST(epoll_create1(EPOLL_CLOEXEC)), file = (int)MUST(eventfd(0, 0));
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event));
    pid_t middle = (pid_t)MUST(fork());
    if (middle == 0) {
      close(epoll);
      if (MUST(fork()) == 0) setsid(), end_with_test();
      _exit(0);
    }
    MUST(waitpid(middle, NULL, 0));
    close(file);
    hold(kind, epoll);
  } else if (!strcmp(kind, "proc-of-another")) {
    /* a file of a task that may be gone at the restore: that of the parent of this one */
    snprintf(path, sizeof(path), "/proc/%d/stat", getppid());
    hold(kind, open(path, O_RDONLY));
  } else if (!strcmp(kind, "child-holds")) {
    /* what is refused in a child; the root holds it no more */
    pair[0] = (int)MUST(syscall(SYS_userfaultfd, 0));
    if (child(0) == 0) end_with_test();
    close(pair[0]);
  } else if (!strcmp(kind, "child-in-pid-namespace")) {
    if (child(CLONE_NEWPID) == 0) end_with_test();
  } else if (!strcmp(kind, "traced-child")) {
    pid_t pid = child(0);
    if (pid == 0) end_with_test();
    MUST(ptrace(PTRACE_SEIZE, pid, 0, 0));
  } else if (!strcmp(kind, "pidfd-of-outside")) {
    hold(kind, (int)syscall(SYS_pidfd_open, 1, 0));
  } else if (!strcmp(kind, "long-path")) {
    static char name[251];
    memset(name, 'd', sizeof(name) - 1);
    MUST(chdir(check_dir));
    for (int i = 0; i < 17; i++) MUST(mkdir(name, 0755)), MUST(chdir(name));
    MUST(open("file", O_RDWR | O_CREAT, 0600));
    MUST(unlink("file"));
    for (int i = 0; i < 17; i++) MUST(chdir("..")), MUST(rmdir(name));
    MUST(chdir("/"));
  } else if (!strcmp(kind, "aio-of-parent")) {
    /* the child has the memory of the ring, but not the context */
    aio_context_t context = 0;
    MUST(syscall(SYS_io_setup, 4, &context));
    if (child(0) == 0) end_with_test();
  } else if (!strcmp(kind, "memory-policy")) {
    unsigned long nodes = 1;
    MUST(syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &nodes, 65));
  } else if (!strcmp(kind, "ldt")) {
    struct user_desc entry = {.entry_number = 3, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1, .limit_in_pages = 1};
    MUST(syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)));
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
