/*
 * Parents that wait in vfork(2), or in clone(2) with CLONE_VFORK, while their children are at rest: a process of one
 * thread, with all that only the kernel knows of it; one whose first thread waits, and then one of whose others does, while
 * the rest runs; and a child that waits itself. Then each child executes a program or ends, and its parent goes on as it
 * was. What children find they leave in their parents' memory. With the argument "user" all are those of an ordinary user,
 * who may only write where root may; without the child that waits itself.
 */
#include "tree.h"
#include <grp.h>
#include <linux/capability.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/time.h>

#define IN_CHILD __attribute__((noinline)) static

/* rbx rbp r12 r13 r14 r15 rdi rsi rdx r8 r9 r10, before the call and after it */
static uint64_t before[12] __attribute__((used)), after[12] __attribute__((used));
/* rax rcx r11 and the flags that the call has left */
static uint64_t result[4] __attribute__((used));
static float xmm_before[16][4] __attribute__((used)), xmm_after[16][4] __attribute__((used));
static float ymm_before[8] __attribute__((used)), ymm_after[8] __attribute__((used));
static uint32_t has_avx __attribute__((used));
static void *own_stack __attribute__((used)), *child_stack __attribute__((used));
static intptr_t stack_moved __attribute__((used));

/* vfork() with registers of our own choice; its child runs alone_child() on another stack. */
__attribute__((naked, noinline)) static void vfork_with_registers(void) {
  __asm__ volatile(
      "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, own_stack(%rip)\n"
      ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups 16*\\n+xmm_before(%rip), %xmm\\n\n .endr\n"
      "cmpl $0, has_avx(%rip)\n je 1f\n vmovups ymm_before(%rip), %ymm7\n 1:\n"
      "fldpi\n"
      "lea before(%rip), %rax\n"
      "mov (%rax), %rbx\n mov 8(%rax), %rbp\n mov 16(%rax), %r12\n mov 24(%rax), %r13\n mov 32(%rax), %r14\n"
      "mov 40(%rax), %r15\n mov 48(%rax), %rdi\n mov 56(%rax), %rsi\n mov 64(%rax), %rdx\n mov 72(%rax), %r8\n"
      "mov 80(%rax), %r9\n mov 88(%rax), %r10\n"
      "mov $58, %eax\n stc\n syscall\n"
      "test %rax, %rax\n jz 3f\n"
      "pushfq\n popq 24+result(%rip)\n"
      "mov %rax, result(%rip)\n mov %rcx, 8+result(%rip)\n mov %r11, 16+result(%rip)\n"
      "lea after(%rip), %rax\n"
      "mov %rbx, (%rax)\n mov %rbp, 8(%rax)\n mov %r12, 16(%rax)\n mov %r13, 24(%rax)\n mov %r14, 32(%rax)\n"
      "mov %r15, 40(%rax)\n mov %rdi, 48(%rax)\n mov %rsi, 56(%rax)\n mov %rdx, 64(%rax)\n mov %r8, 72(%rax)\n"
      "mov %r9, 80(%rax)\n mov %r10, 88(%rax)\n"
      "cmpl $0, has_avx(%rip)\n je 2f\n vmovups %ymm7, ymm_after(%rip)\n 2:\n"
      ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups %xmm\\n, 16*\\n+xmm_after(%rip)\n .endr\n"
      "mov %rsp, %rax\n mov own_stack(%rip), %rsp\n sub %rsp, %rax\n mov %rax, stack_moved(%rip)\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
      "3: mov child_stack(%rip), %rsp\n call alone_child\n ud2\n");
}

/** Becomes an ordinary user, who may write where root may. */
static void become_user(void) {
  gid_t groups[] = {5, 6};
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{1 << CAP_DAC_OVERRIDE, 1 << CAP_DAC_OVERRIDE, 0}};
  MUST(prctl(PR_SET_KEEPCAPS, 1));
  MUST(setgroups(2, groups));
  MUST(setresgid(1000, 1000, 1000));
  MUST(setresuid(1000, 1000, 1000));
  MUST(syscall(SYS_capset, &header, data));
  MUST(prctl(PR_SET_KEEPCAPS, 0));
}

static volatile int caught;
static void on_signal(int signal, siginfo_t *info, void *unused) {
  (void)unused;
  caught += signal == SIGRTMIN && info->si_value.sival_int == 77 ? 100 : 1;
}

/* Of descriptors and directories the child has its own. */
#define OWN_FD 300
static volatile int own_found;

/** Waits for `go`, and executes a program that ends with 9. */
__attribute__((used)) static void alone_child(void) {
  char byte = 1, cwd[256] = "";
  int zero = (int)MUST(open("/dev/zero", O_RDONLY));
  MUST(dup3(zero, OWN_FD, O_CLOEXEC));
  close(zero), close(0);
  MUST(chdir("/usr"));
  umask(077);
  signal(SIGTERM, SIG_DFL);
  tree_tell();
  tree_wait_go();
  own_found = read(OWN_FD, &byte, 1) == 1 && byte == 0 && fcntl(OWN_FD, F_GETFD) == FD_CLOEXEC &&
              fcntl(0, F_GETFD) < 0 && getcwd(cwd, sizeof(cwd)) && !strcmp(cwd, "/usr") && umask(0) == 077 &&
              signal(SIGTERM, SIG_IGN) == SIG_DFL;
  execl("/bin/sh", "sh", "-c", "exit 9", NULL);
  _exit(99);
}

static void set_registers(void) {
  for (int i = 0; i < 12; i++) before[i] = 0x1111111111111111ull * (unsigned)(i + 1) ^ 0xabcdef;
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 4; j++) xmm_before[i][j] = (float)(i * 4 + j) + 0.5f;
  for (int i = 0; i < 8; i++) ymm_before[i] = 100.25f + (float)i;
  has_avx = __builtin_cpu_supports("avx") != 0;
  if (has_avx) memcpy(xmm_before[7], ymm_before, sizeof(xmm_before[7]));
  child_stack = (char *)MUST(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + 65536;
}

static void check_registers(void) {
  const char *names[] = {"rbx", "rbp", "r12", "r13", "r14", "r15", "rdi", "rsi", "rdx", "r8", "r9", "r10"};
  for (int i = 0; i < 12; i++) CHECK_EQ("%s", before[i], after[i], names[i]);
  CHECK_BYTES("the SSE registers", xmm_before, xmm_after, sizeof(xmm_before));
  if (has_avx) CHECK_BYTES("an AVX register", ymm_before, ymm_after, sizeof(ymm_before));
  long double pi;
  __asm__ volatile("fstpt %0" : "=m"(pi) : : "st");
  CHECK_EQ("the x87 register", 1, fabsl(pi - 3.14159265358979323846L) < 1e-17L);
  CHECK_EQ("the stack pointer", 0, stack_moved);
}

/** A process of one thread. */
static void alone(void) {
  struct tree_place place = tree_place();
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART}, now;
  static char stack[32768];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)}, alternate_now;
  struct itimerval real = {{7, 5}, {100000, 6}}, prof = {{0, 0}, {90000, 0}}, timer;
  sigset_t mask, mask_now, pending;
  uint32_t csr = 0x1f80 | 2 << 13, csr_now;

  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGWINCH);
  MUST(sigaction(SIGUSR1, &action, NULL));
  MUST(sigaction(SIGRTMIN, &action, NULL));
  signal(SIGTERM, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  MUST(sigaltstack(&alternate, NULL));
  sigemptyset(&mask);
  for (int s = SIGUSR1; s <= SIGUSR2; s += SIGUSR2 - SIGUSR1) sigaddset(&mask, s);
  sigaddset(&mask, SIGRTMIN);
  sigaddset(&mask, SIGURG);
  MUST(sigprocmask(SIG_BLOCK, &mask, &mask_now));
  MUST(kill(getpid(), SIGUSR1));
  MUST(kill(getpid(), SIGURG));
  MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){77}));
  MUST(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR2));
  MUST(setitimer(ITIMER_REAL, &real, NULL));
  MUST(setitimer(ITIMER_PROF, &prof, NULL));
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  struct itimerspec times = {{3, 4}, {80000, 0}};
  timer_t timers[2];
  for (int i = 0; i < 2; i++) MUST(timer_create(i ? CLOCK_BOOTTIME : CLOCK_MONOTONIC, &event, &timers[i]));
  MUST(timer_settime(timers[1], 0, &times, NULL));
  MUST(prctl(PR_SET_PDEATHSIG, SIGHUP));
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  MUST(prctl(PR_SET_TIMERSLACK, 123456));
  umask(027);
  set_registers();
  __asm__ volatile("ldmxcsr %0" : : "m"(csr));
  vfork_with_registers();
  __asm__ volatile("stmxcsr %0" : "=m"(csr_now));
  int status;
  pid_t child = (pid_t)result[0];
  CHECK_EQ("the result of vfork", child, waitpid(child, &status, 0));
  CHECK_EQ("the status of the child", W_EXITCODE(9, 0), status);
  CHECK_EQ("what the child had of its own", 1, own_found);
  CHECK("its descriptors are not ours", fcntl(OWN_FD, F_GETFD) < 0 && fcntl(0, F_GETFD) >= 0);
  check_registers();
  CHECK_EQ("the carry flag in r11", 1, result[2] & 1);
  CHECK_EQ("rounding (MXCSR)", csr & 0x6000, csr_now & 0x6000);
  tree_check_place(place);
  MUST(sigprocmask(SIG_BLOCK, NULL, &mask_now));
  for (int s = 1; s <= SIGRTMAX; s++)
    CHECK_EQ("signal %d is blocked", sigismember(&mask, s), sigismember(&mask_now, s), s);
  sigpending(&pending);
  for (int s = 1; s <= SIGRTMAX; s++)
    CHECK_EQ("signal %d is pending", sigismember(&mask, s), sigismember(&pending, s), s);
  MUST(sigaction(SIGUSR1, NULL, &now));
  CHECK("the handler", now.sa_sigaction == on_signal && (now.sa_flags & action.sa_flags) == action.sa_flags);
  CHECK_EQ("its mask", 1, sigismember(&now.sa_mask, SIGWINCH));
  MUST(sigaction(SIGTERM, NULL, &now));
  CHECK("an ignored signal", now.sa_handler == SIG_IGN);
  MUST(sigaltstack(NULL, &alternate_now));
  CHECK("the alternate stack", alternate_now.ss_sp == stack && alternate_now.ss_size == sizeof(stack));
  CHECK_EQ("its flags", 0, alternate_now.ss_flags);
  MUST(getitimer(ITIMER_REAL, &timer));
  CHECK_EQ("the interval of ITIMER_REAL", 7, timer.it_interval.tv_sec);
  CHECK("the time left of ITIMER_REAL", timer.it_value.tv_sec > 99000 && timer.it_value.tv_sec <= 100000);
  MUST(getitimer(ITIMER_PROF, &timer));
  CHECK("the time left of ITIMER_PROF", timer.it_value.tv_sec > 89000 && timer.it_value.tv_sec <= 90000);
  MUST(timer_gettime(timers[0], &times));
  CHECK("a timer that is not armed", !times.it_value.tv_sec && !times.it_value.tv_nsec && !times.it_interval.tv_sec);
  MUST(timer_gettime(timers[1], &times));
  CHECK("the interval of a timer", times.it_interval.tv_sec == 3 && times.it_interval.tv_nsec == 4);
  CHECK("the time left of a timer", times.it_value.tv_sec > 79000 && times.it_value.tv_sec <= 80000);
  int value = 0;
  MUST(prctl(PR_GET_PDEATHSIG, &value));
  CHECK_EQ("the parent-death signal", SIGHUP, value);
  MUST(prctl(PR_GET_CHILD_SUBREAPER, &value));
  CHECK_EQ("child subreaper", 1, value);
  CHECK_EQ("the timer slack", 123456, prctl(PR_GET_TIMERSLACK));
  CHECK_EQ("umask", 027, umask(0));
  sigprocmask(SIG_UNBLOCK, &mask, NULL);
  CHECK_EQ("what the handlers got", 101, caught);
  tree_report(0);
}

/* What a process of several threads does. */
static volatile pid_t spawned, seen_parent;
static volatile int resting_calls;
static timer_t timer;

IN_CHILD int spawned_child(void *unused) {
  (void)unused;
  seen_parent = getppid();
  tree_tell();
  tree_wait_go();
  resting_calls += 1000;
  _exit(15);
}

static void spawn_and_wait(void) {
  static char stack[65536] __attribute__((aligned(16)));
  static __thread int mine = 5;
  char old_name[16] = "", name[16] = "";
  sigset_t mask, now;
  int status;

  prctl(PR_GET_NAME, old_name);
  sigfillset(&mask);
  sigdelset(&mask, SIGTRAP);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  spawned = clone(spawned_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
  CHECK_EQ("the child's parent", getpid(), seen_parent);
  CHECK_EQ("the child", spawned, waitpid(spawned, &status, 0));
  CHECK_EQ("the status of the child", W_EXITCODE(15, 0), status);
  pthread_sigmask(SIG_BLOCK, NULL, &now);
  for (int s = 1; s <= SIGRTMAX; s++)
    CHECK_EQ("signal %d is blocked", sigismember(&mask, s), sigismember(&now, s), s);
  CHECK_EQ("a variable of the thread", 5, mine);
  prctl(PR_GET_NAME, name);
  CHECK_STRING("the name of the thread", old_name, name);
}

static void *spawner(void *unused) {
  (void)unused;
  prctl(PR_SET_NAME, "spawner");
  spawn_and_wait();
  return NULL;
}

/** Rests, and works for those that wait. */
static void *worker(void *tick) {
  struct itimerspec left;
  if (tick) MUST(syscall(SYS_tgkill, getpid(), check_tid(), 0));
  tree_wait_go();
  for (int i = 0; i < 100; i++) resting_calls++;
  MUST(timer_gettime(timer, &left));
  if (left.it_value.tv_sec < 49000 || left.it_value.tv_sec > 50000) resting_calls = -1000000;
  return NULL;
}

/** @param leads whether it is the first thread that waits */
static void threaded(bool leads) {
  pthread_t threads[2];
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
  MUST(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {50000, 0}}, NULL));
  MUST0(pthread_create(&threads[0], NULL, worker, NULL));
  check_sleep_ms(1);
  if (leads) {
    spawn_and_wait();
  } else {
    MUST0(pthread_create(&threads[1], NULL, spawner, NULL));
    worker("again");
    MUST0(pthread_join(threads[1], NULL));
  }
  MUST0(pthread_join(threads[0], NULL));
  CHECK_EQ("what all have done", leads ? 1100 : 1200, resting_calls);
  tree_report(0);
}

/** A child that waits for one of its own. */
static void nested(void) {
  static volatile int inner_status, inner_mark;
  static volatile pid_t inner, outer;
  volatile float mark = 7.25f;
  pid_t child = vfork();
  if (child == 0) {
    outer = getpid();
    pid_t own = vfork();
    if (own == 0) {
      inner = getpid();
      inner_mark = getppid() == outer;
      tree_tell();
      tree_wait_go();
      _exit(inner_mark ? 21 : 99);
    }
    int status = 0;
    waitpid(own, &status, 0);
    inner_status = own == inner ? status : -1;
    _exit(22);
  }
  int status = 0;
  CHECK_EQ("the result of vfork", outer, child);
  CHECK_EQ("the child", child, waitpid(child, &status, 0));
  CHECK_EQ("its status", W_EXITCODE(22, 0), status);
  CHECK_EQ("the status of its child", W_EXITCODE(21, 0), inner_status);
  CHECK("a number", mark == 7.25f);
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool users = argc > 2;
  int count = users ? 3 : 4;
  const char *names[] = {"alone", "leader", "thread", "nested"};
  pid_t members[4];
  for (int i = 0; i < count; i++) {
    members[i] = tree_fork("%s", names[i]);
    if (members[i]) continue;
    if (users) become_user();
    if (i == 0) alone();
    if (i == 3) nested();
    threaded(i == 1);
  }
  for (int i = 0; i < count; i++) tree_await(names[i]);
  check_ready();
  for (int i = 0; i < count; i++) {
    tree_collect(names[i]);
    tree_wait(members[i], W_EXITCODE(0, 0));
  }
  return check_finish();
}
