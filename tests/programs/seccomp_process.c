/* One filter for the whole process and no_new_privs, as a sandboxed service has it: unprivileged, TSYNC. */
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <grp.h>

static atomic_int tid;
static void *run(void *result) {
  atomic_store(&tid, check_tid());
  check_wait_go();
  *(int *)result = syscall(SYS_mount, "x", "/x", "tmpfs", 0, NULL) == -1 ? errno : 0;
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(setgroups(0, NULL));
  MUST(setresgid(65534, 65534, 65534));
  MUST(setresuid(65534, 65534, 65534));
  pthread_t id;
  int answer = -1;
  MUST0(pthread_create(&id, NULL, run, &answer));
  while (!atomic_load(&tid)) check_sleep_ms(1);
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  /* everything that a restore would have to call afterwards is forbidden, on pain of death: ptrace, prctl, clone3 … */
  static const int deadly[] = {SYS_ptrace, SYS_setresuid, SYS_capset, SYS_rt_sigaction, SYS_mremap, SYS_setsid,
                               SYS_seccomp, SYS_arch_prctl, SYS_timer_create, SYS_setrlimit, SYS_memfd_create};
  struct sock_filter code[64];
  unsigned n = 0;
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)deadly[i], 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mount, 0, 1);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 123);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)n, code};
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));

  check_ready();

  CHECK_EQ("no_new_privs", 1, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  CHECK_EQ("mode", SECCOMP_MODE_FILTER, prctl(PR_GET_SECCOMP));
  int main_answer = syscall(SYS_mount, "x", "/x", "tmpfs", 0, NULL) == -1 ? errno : 0;
  CHECK_EQ("the filter answers in the main thread", 123, main_answer);
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("the filter answers in the other thread", 123, answer);
  pid_t child = fork();
  if (child == 0) {
    syscall(SYS_capset, NULL, NULL);
    _exit(0);
  }
  int status;
  MUST(waitpid(child, &status, 0));
  CHECK("a deadly call kills", WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
  return check_finish();
}
