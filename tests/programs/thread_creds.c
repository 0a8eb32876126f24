/* Threads with credentials of their own, which raw system calls allow: ids, groups, capabilities, no_new_privs. */
#include "creds.h"

#define THREADS 6
static struct {
  pthread_t id;
  char before[2048], after[2048];
} threads[THREADS];
static atomic_int built;

static void *run(void *argument) {
  int i = (int)(long)argument;
  gid_t groups[] = {100u + (unsigned)i, 200u + (unsigned)i, 300u + (unsigned)i};
  if (i == 1) MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  if (i != 5) MUST(syscall(SYS_setgroups, i % 4, groups));
  if (i == 2 || i == 3) {
    MUST(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS));
    MUST(syscall(SYS_setresgid, 10 * i + 1, 10 * i + 2, 10 * i + 3));
    MUST(syscall(SYS_setresuid, 10 * i + 4, 10 * i + 5, 10 * i + 6));
  }
  if (i == 4) MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
  if (i == 3 || i == 4) creds_set_caps(i == 3 ? 0 : CAP(CAP_KILL), CAP(CAP_KILL) | CAP(CAP_SETUID), i == 3 ? CAP(CAP_SETUID) : 0);
  creds_read(threads[i].before, sizeof(threads[i].before));
  atomic_fetch_add(&built, 1);
  check_wait_go();
  creds_read(threads[i].after, sizeof(threads[i].after));
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char before[2048], after[2048];
  for (long i = 0; i < THREADS; i++) MUST0(pthread_create(&threads[i].id, NULL, run, (void *)i));
  while (atomic_load(&built) < THREADS) check_sleep_ms(1);
  creds_read(before, sizeof(before));

  check_ready();

  creds_read(after, sizeof(after));
  CHECK_STRING("credentials of the main thread", before, after);
  for (int i = 0; i < THREADS; i++) {
    MUST0(pthread_join(threads[i].id, NULL));
    CHECK_STRING("credentials of thread %d", threads[i].before, threads[i].after, i);
    for (int k = 0; k < i; k++)
      if (!strcmp(threads[i].before, threads[k].before) && i != 5 && k != 0 && k != 5) check_die("threads %d and %d are alike", i, k);
  }
  return check_finish();
}
