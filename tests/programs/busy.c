/*
 * A busy program that verifies itself all the time and ends at the first difference:
 * busy WORK_DIRECTORY [CHILDREN [leaderless | filters | dispatch]]. With `leaderless`, the first thread of every
 * process ends before; with `filters`, seccomp ends a process that makes a call which only a ckpt inside it would make;
 * with `dispatch`, a thread of it is under syscall user dispatch.
 * Every thread of it and of its children counts its rounds in a shared file, `progress`, a page for each process,
 * where a test can see that it goes on. It maps, allocates and opens nothing more once
 * it is ready, so that its maps and descriptors must stay as they are.
 */
#include "tree.h"
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGES 256
enum { MEMORY, MEMORY_TOO, FLOATS, SLEEPER, POLLER, SIGNALS, FUTEX_A, FUTEX_B, FILE_, KINDS };
static const char *const names[KINDS] = {"memory", "memory too", "floats", "sleeper", "poller", "signals", "futex a", "futex b", "file"};

struct progress {
  _Atomic uint64_t rounds[KINDS];
};
static struct progress *progress;
static char trouble[512];
static atomic_int failed, stop;
static pthread_t ids[KINDS];
static sigset_t masks[KINDS];
static volatile uint64_t expected_value, signals_seen;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...) {
  if (atomic_exchange(&failed, 1)) return;
  va_list list;
  va_start(list, format);
  vsnprintf(trouble, sizeof(trouble), format, list);
  va_end(list);
}
static long breath_ms = 1;
/**
 * Also takes a breath every so many rounds: a program that leaves no processor idle starves the tests themselves, for
 * seconds on some machines.
 */
static int goes_on(uint64_t round, uint64_t breath) {
  if (round % breath == 0) check_sleep_ms(breath_ms);
  return !atomic_load(&stop) && !atomic_load(&failed);
}

/** Every page carries the number of the round that wrote it; a page too old, too new or torn is found. */
static void run_memory(int kind) {
  uint64_t *memory = (uint64_t *)MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE,
                                           MAP_ANONYMOUS | (kind == MEMORY ? MAP_PRIVATE : MAP_SHARED), -1, 0));
  for (uint64_t i = 0; i < PAGES * 512; i++) memory[i] = i;
  progress->rounds[kind]++;
  for (uint64_t round = 1; goes_on(round, 2); round++) {
    for (uint64_t i = 0; i < PAGES * 512; i++) {
      if (memory[i] != i + (round - 1) * 0x100000001ull) {
        fail("%s, round %lu, word %lu: %#lx", names[kind], round, i, memory[i]);
        return;
      }
      memory[i] += 0x100000001ull;
    }
    progress->rounds[kind]++;
  }
}

static enum { PLAIN, LEADERLESS, FILTERS, DISPATCH } variant;

/** What the agent calls and this program never does, whatever else it may do until its end. */
static void forbid_calls(void) {
  static const int deadly[] = {SYS_mprotect, SYS_mremap, SYS_prctl, SYS_capget, SYS_rt_sigaction,
                               SYS_getitimer, SYS_sigaltstack, SYS_timer_gettime, SYS_arch_prctl, SYS_getresuid};
  struct sock_filter code[64];
  unsigned n = 0;
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)deadly[i], 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)n, code};
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
}

/** Under syscall user dispatch a call is a signal when the selector says so: an uncalled-for one is found. */
static volatile char selector;
static volatile uint64_t calls_caught;
static void on_call(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  selector = 0;
  if (info->si_syscall != SYS_getpgid) fail("dispatch: call %d", info->si_syscall);
  calls_caught++;
}
static void dispatch_calls(void) {
  /* With SA_NODEFER the signal mask, which the test compares, is the same inside of the handler. */
  struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
  MUST(sigaction(SIGSYS, &action, NULL));
  MUST(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector));
}
static void check_dispatch(uint64_t round) {
  selector = 1;
  syscall(SYS_getpgid, 0);
  if (calls_caught != round) fail("dispatch: %lu calls caught in %lu rounds", calls_caught, round);
  selector = 1;
}

static void run_floats(void) {
  if (variant == DISPATCH) dispatch_calls();
  for (uint64_t round = 1; selector = 0, goes_on(round, 16); round++) {
    double vector[8], sum = 0;
    if (variant == DISPATCH) check_dispatch(round);
    register double a = 1.0, b = 2.0, c = 3.0, d = 4.0;
    for (int i = 0; i < 20000; i++) {
      asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
      a += 1.0, b += a, c += 0.5, d -= 0.25;
    }
    vector[0] = a, vector[1] = b, vector[2] = c, vector[3] = d;
    for (int i = 0; i < 4; i++) sum += vector[i];
    if (sum != 20001.0 + (2.0 + 20000.0 * 20003.0 / 2) + 10003.0 + (4.0 - 5000.0)) {
      fail("floats: %.17g", sum);
      return;
    }
    progress->rounds[FLOATS]++;
  }
}

/** Signals are blocked here: nothing may end a sleep early or with EINTR. */
static void run_sleeper(void) {
  while (goes_on(1, 2)) {
    struct timespec span = {0, 3000000}, start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int value = nanosleep(&span, NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    long ns = (end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec;
    if (value || ns < 3000000) {
      fail("nanosleep: %d, %s, after %ld ns", value, strerror(errno), ns);
      return;
    }
    progress->rounds[SLEEPER]++;
  }
}
static void run_poller(void) {
  while (goes_on(1, 2)) {
    int value = poll(NULL, 0, 5);
    if (value) {
      fail("poll: %d, %s", value, strerror(errno));
      return;
    }
    progress->rounds[POLLER]++;
  }
}

static void on_signal(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  if ((uint64_t)(uintptr_t)info->si_value.sival_ptr != expected_value) fail("signal out of order");
  signals_seen++;
}
/** Sends itself queued signals with values; each must arrive once, in order, before sigqueue returns. */
static void run_signals(void) {
  for (uint64_t value = 1; goes_on(value, 16); value++) {
    expected_value = value;
    union sigval v = {.sival_ptr = (void *)(uintptr_t)value};
    if (pthread_sigqueue(ids[SIGNALS], SIGRTMIN + 1, v)) {
      fail("sigqueue: %s", strerror(errno));
      return;
    }
    if (signals_seen != value) {
      fail("%lu signals sent, %lu seen", value, signals_seen);
      return;
    }
    progress->rounds[SIGNALS]++;
  }
}

static uint32_t turn;
/** Two threads take turns through a futex; a lost wake-up stops both, an EINTR is an error. */
static void run_futex(int kind) {
  uint32_t mine = kind == FUTEX_A ? 0 : 1;
  while (goes_on(1, 2)) {
    uint32_t now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST);
    if (now % 2 != mine) {
      struct timespec patience = {1, 0};
      long value = syscall(SYS_futex, &turn, FUTEX_WAIT, now, &patience, NULL, 0);
      if (value < 0 && errno != EAGAIN && errno != ETIMEDOUT) fail("futex: %s", strerror(errno));
      continue;
    }
    __atomic_store_n(&turn, now + 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    progress->rounds[kind]++;
    if (now % 64 == mine) check_sleep_ms(1);
  }
}

/** Writes and reads a file through one position; a position that moves by itself is found. */
static void run_file(int fd) {
  char block[512], back[512];
  for (uint64_t round = 0; goes_on(round, 16); round++) {
    check_fill(block, sizeof(block), round);
    off_t at = lseek(fd, (off_t)(round % 64 * sizeof(block)), SEEK_SET);
    if (write(fd, block, sizeof(block)) != sizeof(block) || lseek(fd, 0, SEEK_CUR) != at + (off_t)sizeof(block) ||
        pread(fd, back, sizeof(back), at) != sizeof(back) || memcmp(block, back, sizeof(block))) {
      fail("file, round %lu: %s", round, strerror(errno));
      return;
    }
    progress->rounds[FILE_]++;
  }
}

static int file;
static void *run(void *argument) {
  int kind = (int)(long)argument;
  sigset_t now;
  sigfillset(&masks[kind]);
  if (kind == SIGNALS) sigdelset(&masks[kind], SIGRTMIN + 1);
  if (kind == FLOATS && variant == DISPATCH) sigdelset(&masks[kind], SIGSYS);
  pthread_sigmask(SIG_SETMASK, &masks[kind], NULL);
  pthread_sigmask(SIG_SETMASK, NULL, &masks[kind]);
  pthread_setname_np(pthread_self(), names[kind]);
  if (kind == MEMORY || kind == MEMORY_TOO) run_memory(kind);
  if (kind == FLOATS) run_floats();
  if (kind == SLEEPER) run_sleeper();
  if (kind == POLLER) run_poller();
  if (kind == SIGNALS) run_signals();
  if (kind == FUTEX_A || kind == FUTEX_B) run_futex(kind);
  if (kind == FILE_) run_file(file);
  pthread_sigmask(SIG_SETMASK, NULL, &now);
  if (memcmp(&now, &masks[kind], sizeof(now))) fail("%s: the signal mask has changed", names[kind]);
  return NULL;
}

/** One process of the tree, from its building until `go`. */
static void busy(int number, void (*ready)(void)) {
  char path[4300];
  snprintf(path, sizeof(path), "%s/file-%d", check_dir, number);
  progress = (struct progress *)((char *)progress + number * 4096);
  file = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  /* its size is fixed from the start, for a restore may compare it */
  MUST(ftruncate(file, 64 * 512));
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
  MUST(sigaction(SIGRTMIN + 1, &action, NULL));
  for (long i = 0; i < KINDS; i++) MUST0(pthread_create(&ids[i], NULL, run, (void *)i));
  for (int i = 0; i < KINDS; i++)
    while (!progress->rounds[i] && !failed) check_sleep_ms(1);
  if (variant == FILTERS) forbid_calls();
  ready();
  double end = check_seconds() + 4 * CHECK_SECONDS_TO_LIVE;
  while (!tree_exists("go", "") && !failed && check_seconds() < end) check_sleep_ms(2);
  atomic_store(&stop, 1);
  syscall(SYS_futex, &turn, FUTEX_WAKE, 2, NULL, NULL, 0);
  for (int i = 0; i < KINDS; i++) pthread_join(ids[i], NULL);
  if (failed) check_line("%s\n", trouble);
}
static void say_ready(void) { check_write_file("ready", "", 0); }

static int children;
static pid_t pids[8];

static void *run_member(void *number) {
  if (variant == LEADERLESS) tree_await_state(getpid(), 'Z');
  busy((int)(long)number, tree_tell);
  tree_report(failed);
}

static void *run_root(void *unused) {
  if (variant == LEADERLESS) tree_await_state(getpid(), 'Z');
  busy(0, say_ready);
  for (int i = 0; i < children; i++) {
    char name[64];
    snprintf(name, sizeof(name), "child-%d", i + 1);
    tree_collect(name);
    tree_wait(pids[i], 0);
  }
  exit(check_finish());
  return unused;
}

static void go_on(void *(*rest)(void *), void *argument) {
  if (variant != LEADERLESS) rest(argument);
  pthread_t id;
  MUST0(pthread_create(&id, NULL, rest, argument));
  syscall(SYS_exit, 0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  children = argc > 2 ? atoi(argv[2]) : 0;
  if (argc > 3)
    variant = !strcmp(argv[3], "leaderless") ? LEADERLESS : !strcmp(argv[3], "filters") ? FILTERS : DISPATCH;
  if (children < 0 || children > 8) return 2;
  /* together no busier than one alone */
  breath_ms += 12 * children;
  char path[4300], name[64];
  snprintf(path, sizeof(path), "%s/progress", check_dir);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  MUST(ftruncate(fd, (children + 1) * 4096));
  progress = (struct progress *)MUST(mmap(NULL, (size_t)(children + 1) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  close(fd);
  for (int i = 0; i < children; i++) {
    pids[i] = tree_fork("child-%d", i + 1);
    if (pids[i] == 0) go_on(run_member, (void *)(long)(i + 1));
    snprintf(name, sizeof(name), "child-%d", i + 1);
    tree_await(name);
  }
  go_on(run_root, NULL);
  return 0;
}
