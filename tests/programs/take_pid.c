/*
 * Holds a pid so that nobody else can have it: take_pid PID process|thread|session|group. Prints `ready` and holds it
 * until it is killed. As a session or group: its leader is gone, and a process without that pid is in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void hold(void) {
  printf("ready %d\n", getpid());
  fflush(stdout);
  for (;;) pause();
}

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: take_pid PID process|thread|session|group\n"), 2;
  pid_t wanted = atoi(argv[1]);
  static char stack[65536] __attribute__((aligned(16)));
  int thread = !strcmp(argv[2], "thread"), session = !strcmp(argv[2], "session"), group = !strcmp(argv[2], "group");
  uint64_t ids = (uint64_t)(uintptr_t)&wanted;
  struct clone_args args = {.set_tid = ids, .set_tid_size = 1, .exit_signal = SIGCHLD};
  if (thread) {
    /* the new thread only waits; it uses no C library */
    args.exit_signal = 0;
    args.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    args.stack = (uint64_t)(uintptr_t)stack, args.stack_size = sizeof(stack);
  }
  long pid;
  if (thread) {
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("syscall\n test %%rax,%%rax\n jnz 1f\n 2: mov $34,%%eax\n syscall\n jmp 2b\n 1:"
                     : "=a"(pid)
                     : "a"(SYS_clone3), "D"(&args), "S"(sizeof(args)), "r"(r10)
                     : "rcx", "r11", "memory");
    if (pid < 0) return fprintf(stderr, "clone3: %s\n", strerror((int)-pid)), 1;
    hold();
  }
  pid = syscall(SYS_clone3, &args, sizeof(args));
  if (pid < 0) return fprintf(stderr, "clone3: %s\n", strerror(errno)), 1;
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!session && !group) hold();
    if (session ? setsid() < 0 : setpgid(0, 0)) return 1;
    pid_t below = fork();
    if (below == 0) hold();
    _exit(below < 0);
  }
  if (session || group) waitpid((pid_t)pid, NULL, 0);
  for (;;) pause();
}
