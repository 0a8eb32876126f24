/* The main thread has ended while another one goes on: its entry stays as a zombie and leads the process. */
#include "check.h"
#include <signal.h>

static pthread_t main_thread;
static void *run(void *unused) {
  pthread_join(main_thread, NULL);
  pid_t pid = getpid();
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/task/%d/status", pid);
  while (strncmp(check_proc(path, "State:"), "State:\tZ", 8)) check_sleep_ms(1);
  check_ready();
  CHECK_EQ("process id", pid, getpid());
  CHECK("another thread than the leader", check_tid() != pid);
  CHECK_STRING("state of the leader", "State:\tZ (zombie)", check_proc(path, "State:"));
  exit(check_finish());
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  main_thread = pthread_self();
  pthread_t id;
  MUST0(pthread_create(&id, NULL, run, NULL));
  pthread_exit(NULL);
}
