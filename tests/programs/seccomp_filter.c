/*
 * Seccomp filters: none, one, and chains of them, different for each thread, some shared. Each filter answers one
 * system call that does not exist with an errno of its own, so that every one shows whether it is there.
 */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <signal.h>
#include <sys/prctl.h>

#define THREADS 5
#define PROBES 8
/** Numbers of system calls that do not exist: probe i is answered by filter i. */
#define PROBE(i) (10000 + (i))

static struct {
  pthread_t id;
  int before[PROBES], after[PROBES];
  int mode, nnp, order_before, order_after, trapped;
} threads[THREADS + 1];
static atomic_int built;
static __thread volatile int trap_seen;

static void on_trap(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  trap_seen = info->si_syscall == PROBE(7) ? info->si_errno : -1;
}

static void install(int probe, uint32_t answer, unsigned flags) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROBE(probe), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, answer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static void probe(int *answers, int *order) {
  for (int i = 0; i < PROBES - 1; i++) answers[i] = syscall(PROBE(i)) == -1 ? errno : 0;
  trap_seen = 0;
  syscall(PROBE(7));
  answers[7] = trap_seen;
  *order = answers[6];
}

static void *run(void *argument) {
  int i = (int)(long)argument;
  if (i == 1) install(1, SECCOMP_RET_ERRNO | 201, 0);
  if (i == 2 || i == 3)
    for (int k = 0; k < 40; k++) install(2 + k % 3, SECCOMP_RET_ERRNO | (uint32_t)(300 + 10 * i + k % 3), k % 2 ? SECCOMP_FILTER_FLAG_LOG : 0);
  /* two filters for the same call: the younger one wins, so their order shows */
  if (i == 3) install(6, SECCOMP_RET_ERRNO | 401, 0), install(6, SECCOMP_RET_ERRNO | 402, 0);
  if (i == 4) install(6, SECCOMP_RET_ERRNO | 402, SECCOMP_FILTER_FLAG_SPEC_ALLOW), install(6, SECCOMP_RET_ERRNO | 401, 0);
  if (i == 4) install(7, SECCOMP_RET_TRAP | 77, 0);
  probe(threads[i].before, &threads[i].order_before);
  atomic_fetch_add(&built, 1);
  check_wait_go();
  probe(threads[i].after, &threads[i].order_after);
  threads[i].mode = prctl(PR_GET_SECCOMP);
  threads[i].nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  MUST(sigaction(SIGSYS, &action, NULL));
  /* thread 0 is made before the filter of the process: it has none; it needs CAP_SYS_ADMIN instead of no_new_privs */
  MUST0(pthread_create(&threads[0].id, NULL, run, (void *)0));
  while (atomic_load(&built) < 1) check_sleep_ms(1);
  install(0, SECCOMP_RET_ERRNO | 200, 0);
  for (long i = 1; i < THREADS; i++) MUST0(pthread_create(&threads[i].id, NULL, run, (void *)i));
  while (atomic_load(&built) < THREADS) check_sleep_ms(1);
  int before[PROBES], after[PROBES], order;
  probe(before, &order);

  check_ready();

  probe(after, &order);
  for (int p = 0; p < PROBES; p++) CHECK_EQ("answer to probe %d of the main thread", before[p], after[p], p);
  for (int i = 0; i < THREADS; i++) {
    MUST0(pthread_join(threads[i].id, NULL));
    CHECK_EQ("seccomp mode of thread %d", i ? SECCOMP_MODE_FILTER : SECCOMP_MODE_DISABLED, threads[i].mode, i);
    CHECK_EQ("no_new_privs of thread %d", 0, threads[i].nnp, i);
    for (int p = 0; p < PROBES; p++) CHECK_EQ("answer to probe %d of thread %d", threads[i].before[p], threads[i].after[p], p, i);
  }
  CHECK_EQ("probe 0 without a filter", ENOSYS, threads[0].after[0]);
  CHECK_EQ("probe 0 with the filter of the process", 200, threads[1].after[0]);
  CHECK_EQ("the younger of two filters", 402, threads[3].after[6]);
  CHECK_EQ("the younger of two filters, the other way round", 401, threads[4].after[6]);
  CHECK_EQ("the trap", 77, threads[4].after[7]);
  return check_finish();
}
