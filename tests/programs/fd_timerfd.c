/* timerfds: clocks, absolute and relative, running, expired, stopped; one that a child shares. "plain": only what CRIU restores. */
#include "tree.h"
#include <poll.h>
#include <sys/timerfd.h>

#define HOUR 3600

static int timer(int clock, int flags, time_t value, time_t interval) {
  int fd = (int)MUST(timerfd_create(clock, TFD_NONBLOCK));
  struct itimerspec times = {{interval, 0}, {value, 0}};
  if (flags & TFD_TIMER_ABSTIME) {
    struct timespec now;
    MUST(clock_gettime(clock, &now));
    times.it_value.tv_sec += now.tv_sec;
  }
  MUST(timerfd_settime(fd, flags, &times, NULL));
  return fd;
}
static uint64_t take(int fd) {
  uint64_t value = 0;
  return read(fd, &value, sizeof(value)) == sizeof(value) ? value : (uint64_t)-errno;
}
static void expect(const char *name, int fd, time_t most, time_t interval) {
  struct itimerspec times;
  CHECK_EQ("gettime of %s", 0, timerfd_gettime(fd, &times), name);
  CHECK("time left of %s: %ld", times.it_value.tv_sec <= most && times.it_value.tv_sec > most - 100, name,
        (long)times.it_value.tv_sec);
  CHECK_EQ("interval of %s", interval, times.it_interval.tv_sec, name);
  CHECK_EQ("expiries of %s", -EAGAIN, (int64_t)take(fd), name);
}
static int settime_flags(int fd) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
  return (int)strtol(check_proc(path, "settime flags:") + 14, NULL, 8);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain = argc > 2;
  int idle = (int)MUST(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  int relative = timer(CLOCK_MONOTONIC, 0, HOUR, 7);
  int absolute = timer(CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, HOUR, 0);
  int boot = timer(CLOCK_BOOTTIME, 0, HOUR, 0);
  int boot_absolute = timer(CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, HOUR, 0);
  int real = timer(CLOCK_REALTIME, 0, HOUR, 0);
  int cancelled = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, HOUR, 0);
  int alarm = timer(plain ? CLOCK_BOOTTIME : CLOCK_BOOTTIME_ALARM, 0, HOUR, 0);
  int missed = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME, -5, 0);
  int stopped = timer(CLOCK_MONOTONIC, 0, HOUR, 0);
  MUST(timerfd_settime(stopped, 0, &(struct itimerspec){{3, 0}, {0, 0}}, NULL));
  /* has expired twice, and does so again in an hour; this machine may be up for less than that */
  int early = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME, -HOUR - 10, HOUR);
  int shared = timer(CLOCK_MONOTONIC, 0, HOUR, 0);

  pid_t child = tree_fork("child");
  if (child == 0) {
    int own = (int)MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    MUST(timerfd_settime(own, 0, &(struct itimerspec){{0, 0}, {HOUR, 0}}, NULL));
    close(relative);
    tree_settled();
    expect("the child's", own, HOUR, 0);
    MUST(timerfd_settime(shared, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
    tree_report(0);
  }
  tree_await("child");
  /* what expires every 20 ms: nobody reads, nothing is lost */
  int fast = (int)MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  MUST(timerfd_settime(fast, 0, &(struct itimerspec){{0, 20000000}, {0, 20000000}}, NULL));
  check_sleep_ms(200);
  check_ready();
  expect("relative", relative, HOUR, 7);
  expect("absolute", absolute, HOUR, 0);
  expect("boot", boot, HOUR, 0);
  expect("boot absolute", boot_absolute, HOUR, 0);
  expect("real", real, HOUR, 0);
  expect("cancelled when the clock is set", cancelled, HOUR, 0);
  expect("alarm", alarm, HOUR, 0);
  CHECK_EQ("flags of the absolute one", TFD_TIMER_ABSTIME, settime_flags(absolute));
  CHECK_EQ("flags of the cancelled one", TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, settime_flags(cancelled));
  struct itimerspec times;
  CHECK_EQ("idle", -EAGAIN, (int64_t)take(idle));
  CHECK_EQ("gettime of idle", 0, timerfd_gettime(idle, &times));
  CHECK_EQ("idle does not run", 0, times.it_value.tv_sec + times.it_value.tv_nsec);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(idle, F_GETFD));
  CHECK_EQ("missed", 1, take(missed));
  CHECK_EQ("missed, once only", -EAGAIN, (int64_t)take(missed));
  CHECK_EQ("gettime of stopped", 0, timerfd_gettime(stopped, &times));
  CHECK_EQ("stopped does not run", 0, times.it_value.tv_sec);
  CHECK_EQ("its interval", 3, times.it_interval.tv_sec);
  if (plain) CHECK("early", take(early) > 0);
  else CHECK_EQ("early", 2, take(early));
  expect("early", early, HOUR, HOUR);
  uint64_t ticks = take(fast);
  CHECK("expiries of what nobody read: %llu", (int64_t)ticks >= (plain ? 1 : 9), (unsigned long long)ticks);
  struct pollfd polled = {fast, POLLIN, 0};
  if (!plain) CHECK_EQ("it goes on", 1, poll(&polled, 1, 5000));
  tree_collect("child");
  polled.fd = shared;
  CHECK_EQ("what the child has set", 1, poll(&polled, 1, 5000));
  tree_wait(child, 0);
  return check_finish();
}
