/*
 * Seccomp strict mode of one thread: it may only read, write, exit. It spins, then writes its answer through a
 * descriptor of a regular file; the main thread, unlimited, looks at it.
 */
#include "check.h"
#include <linux/seccomp.h>
#include <sys/prctl.h>

static int output;
static atomic_int tid, leave;

static void *run(void *unused) {
  (void)unused;
  atomic_store(&tid, check_tid());
  MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
  while (!atomic_load(&leave)) asm volatile("pause");
  syscall(SYS_write, output, "alive", 5);
  syscall(SYS_exit, 0);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200];
  snprintf(path, sizeof(path), "%s/answer", check_dir);
  output = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&tid)) check_sleep_ms(1);
  snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
  while (strcmp(check_proc(path, "Seccomp:"), "Seccomp:\t1")) check_sleep_ms(1);

  check_ready();

  CHECK_STRING("mode of the strict thread", "Seccomp:\t1", check_proc(path, "Seccomp:"));
  atomic_store(&leave, 1);
  char answer[8] = "";
  for (int i = 0; i < 1000 && pread(output, answer, 5, 0) != 5; i++) check_sleep_ms(5);
  CHECK_STRING("what the strict thread wrote", "alive", answer);
  return check_finish();
}
