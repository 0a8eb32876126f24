/* The three interval timers: a running one keeps firing, far ones keep their remaining time and interval. */
#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t alarms;
static void on_alarm(int sig) {
  (void)sig;
  alarms++;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sigaction action = {.sa_handler = on_alarm};
  MUST(sigaction(SIGALRM, &action, NULL));
  struct itimerval real = {{0, 70000}, {0, 50000}}, virtual = {{300, 1000}, {500, 0}}, profile = {{0, 0}, {700, 5000}}, now;
  MUST(setitimer(ITIMER_REAL, &real, NULL));
  MUST(setitimer(ITIMER_VIRTUAL, &virtual, NULL));
  MUST(setitimer(ITIMER_PROF, &profile, NULL));

  check_ready();

  int before = alarms;
  for (int i = 0; i < 500 && alarms < before + 3; i++) check_sleep_ms(10);
  CHECK("ITIMER_REAL fires on and on", alarms >= before + 3);
  MUST(getitimer(ITIMER_REAL, &now));
  CHECK_EQ("interval of ITIMER_REAL, microseconds", 70000, now.it_interval.tv_usec);
  MUST(getitimer(ITIMER_VIRTUAL, &now));
  CHECK_EQ("interval of ITIMER_VIRTUAL", 300, now.it_interval.tv_sec);
  /* the kernel counts CPU timers in whole ticks */
  CHECK("interval of ITIMER_VIRTUAL, microseconds", labs((long)now.it_interval.tv_usec - 1000) <= 10000);
  CHECK("remaining time of ITIMER_VIRTUAL: %.3f", seconds(now.it_value) > 490 && seconds(now.it_value) <= 500.02, seconds(now.it_value));
  MUST(getitimer(ITIMER_PROF, &now));
  CHECK_EQ("interval of ITIMER_PROF", 0, now.it_interval.tv_sec + now.it_interval.tv_usec);
  CHECK("remaining time of ITIMER_PROF: %.3f", seconds(now.it_value) > 690 && seconds(now.it_value) <= 700.03, seconds(now.it_value));
  return check_finish();
}
