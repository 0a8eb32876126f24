/*
 * Ends in a way that is asked for after `go`: ends WORK_DIRECTORY exit N | signal N | wait. `wait` ends with the
 * status 40 + 1 if it got SIGUSR2 + 2 if it got SIGUSR1, once it gets SIGTERM.
 */
#include "check.h"
#include <signal.h>
#include <sys/resource.h>

static volatile sig_atomic_t usr, terminated;
static void on_signal(int sig) {
  if (sig == SIGUSR2)
    usr |= 1;
  else if (sig == SIGUSR1)
    usr |= 2;
  else
    terminated = 1;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const char *how = argc > 2 ? argv[2] : "exit";
  int number = argc > 3 ? atoi(argv[3]) : 0;
  signal(SIGUSR2, on_signal);
  signal(SIGUSR1, on_signal);
  if (!strcmp(how, "wait")) signal(SIGTERM, on_signal);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  check_ready();
  if (!strcmp(how, "wait")) {
    check_write_file("went", "", 0);
    while (!terminated) check_sleep_ms(2);
    number = 40 + usr;
  }
  if (!strcmp(how, "signal")) raise(number);
  return number;
}
