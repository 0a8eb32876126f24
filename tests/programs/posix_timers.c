/* POSIX timers: ids with holes, all clocks, all kinds of notification, remaining time, overruns, pending expiries. */
#include "check.h"
#include <signal.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
#define COUNT 24

struct timer {
  int id, used;
  clockid_t clock;
  struct sigevent event;
  struct itimerspec before;
} timers[COUNT];

static pthread_t thread;
static atomic_int tid, thread_signals;
static siginfo_t thread_info;
static volatile sig_atomic_t ticks, tick_value, tick_id;

static void on_tick(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)context;
  ticks++;
  tick_value = info->si_value.sival_int;
  tick_id = info->si_timerid;
}

static void *run(void *unused) {
  (void)unused;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 9);
  atomic_store(&tid, check_tid());
  while (!atomic_load(&check_go_seen)) check_sleep_ms(2);
  /* expiries from before the restore may be pending: the next ones count */
  for (int i = 0; i < 3; i++)
    if (sigwaitinfo(&set, &thread_info) > 0) thread_signals++;
  return NULL;
}

static int create(clockid_t clock, struct sigevent *event) {
  int id = -1;
  MUST(syscall(SYS_timer_create, clock, event, &id));
  return id;
}
static void arm(int id, int flags, struct timespec value, struct timespec interval) {
  struct itimerspec spec = {interval, value};
  MUST(syscall(SYS_timer_settime, id, flags, &spec, NULL));
}
static double seconds(struct timespec t) { return (double)t.tv_sec + (double)t.tv_nsec / 1e9; }

int main(int argc, char **argv) {
  static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC,          CLOCK_BOOTTIME,
                                     CLOCK_TAI,      CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
  check_start(argc, argv);
  sigset_t blocked;
  sigemptyset(&blocked);
  for (int i = 9; i <= 13; i++) sigaddset(&blocked, SIGRTMIN + i);
  MUST0(pthread_sigmask(SIG_BLOCK, &blocked, NULL));
  struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
  MUST(sigaction(SIGRTMIN + 8, &action, NULL));
  MUST0(pthread_create(&thread, NULL, run, NULL));
  while (!atomic_load(&tid)) check_sleep_ms(1);

  /* every clock, in every state: armed with interval, armed once, disarmed; ids with holes */
  struct sigevent skipped = {.sigev_notify = SIGEV_NONE};
  for (int i = 0; i < COUNT; i++) {
    struct timer *t = &timers[i];
    for (int hole = 0; hole < i % 5; hole++) MUST(syscall(SYS_timer_delete, create(CLOCK_MONOTONIC, &skipped)));
    t->clock = clocks[i % 6];
    t->event = (struct sigevent){.sigev_notify = i % 4 == 3 ? SIGEV_NONE : SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 10 + i % 3};
    t->event.sigev_value.sival_ptr = (void *)(0x123400000000ul + (unsigned long)i);
    t->id = create(t->clock, &t->event);
    if (i / 6 == 0) arm(t->id, 0, (struct timespec){1000 + i, 5}, (struct timespec){60 + i, 777});
    if (i / 6 == 1) arm(t->id, 0, (struct timespec){2000 + i, 500000000}, (struct timespec){0, 0});
    if (i / 6 == 2) {
      struct timespec at;
      clock_gettime(t->clock, &at);
      at.tv_sec += 3000 + i;
      arm(t->id, TIMER_ABSTIME, at, (struct timespec){1, 0});
    }
  }
  for (int i = 0; i < COUNT; i++) MUST(syscall(SYS_timer_gettime, timers[i].id, &timers[i].before));

  /* one that ticks for the process, one for a thread */
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 8};
  event.sigev_value.sival_int = 4711;
  int ticking = create(CLOCK_MONOTONIC, &event);
  arm(ticking, 0, (struct timespec){0, 30000000}, (struct timespec){0, 30000000});
  event = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 9};
  event.sigev_notify_thread_id = tid;
  event.sigev_value.sival_int = 4712;
  int for_thread = create(CLOCK_REALTIME, &event);
  arm(for_thread, 0, (struct timespec){0, 40000000}, (struct timespec){0, 40000000});

  /* absolute in the past with a long interval: expired 7 times over, at once, and not again for 500 s */
  struct timespec past;
  clock_gettime(CLOCK_REALTIME, &past);
  past.tv_sec -= 7500;
  sigset_t set;
  siginfo_t info;
  event = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 12};
  event.sigev_value.sival_int = 4713;
  int delivered = create(CLOCK_REALTIME, &event);
  arm(delivered, TIMER_ABSTIME, past, (struct timespec){1000, 0});
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 12);
  MUST(sigwaitinfo(&set, &info));
  if (info.si_overrun != 7 || syscall(SYS_timer_getoverrun, delivered) != 7) check_die("overrun of %d", info.si_overrun);
  event.sigev_signo = SIGRTMIN + 13;
  event.sigev_value.sival_int = 4714;
  int pending = create(CLOCK_REALTIME, &event);
  arm(pending, TIMER_ABSTIME, past, (struct timespec){1000, 0});

  /* from here on each timer that ticks has one expiry pending or none, so that the picture does not change */
  check_sleep_ms(100);
  check_ready();

  for (int i = 0; i < COUNT; i++) {
    struct timer *t = &timers[i];
    struct itimerspec now;
    if (syscall(SYS_timer_gettime, t->id, &now)) {
      CHECK("timer %d is there", false, t->id);
      continue;
    }
    CHECK_EQ("interval of timer %d, seconds", t->before.it_interval.tv_sec, now.it_interval.tv_sec, t->id);
    CHECK_EQ("interval of timer %d, nanoseconds", t->before.it_interval.tv_nsec, now.it_interval.tv_nsec, t->id);
    double was = seconds(t->before.it_value), is = seconds(now.it_value);
    CHECK("remaining time of timer %d: before %.3f, after %.3f", was == 0 ? is == 0 : is <= was + 0.011 && is > was - 120, t->id, was, is);
  }
  int before = ticks;
  for (int i = 0; i < 500 && ticks < before + 3; i++) check_sleep_ms(10);
  CHECK("a periodic timer goes on", ticks >= before + 3);
  CHECK_EQ("value that comes with its signal", 4711, tick_value);
  CHECK_EQ("id that comes with its signal", ticking, tick_id);
  MUST0(pthread_join(thread, NULL));
  CHECK_EQ("expiries for a thread", 3, thread_signals);
  CHECK_EQ("value of a timer for a thread", 4712, thread_info.si_value.sival_int);
  CHECK_EQ("id of a timer for a thread", for_thread, thread_info.si_timerid);
  CHECK_EQ("overrun of the last delivered expiry", 7, syscall(SYS_timer_getoverrun, delivered));
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 13);
  struct timespec none = {0, 0};
  memset(&info, 0, sizeof(info));
  CHECK_EQ("an expiry is pending", SIGRTMIN + 13, sigtimedwait(&set, &info, &none));
  CHECK_EQ("code of the pending expiry", SI_TIMER, info.si_code);
  CHECK_EQ("value of the pending expiry", 4714, info.si_value.sival_int);
  CHECK_EQ("id of the pending expiry", pending, info.si_timerid);
  CHECK_EQ("overrun of the pending expiry", 7, info.si_overrun);
  CHECK_EQ("timer_getoverrun after the pending expiry", 7, syscall(SYS_timer_getoverrun, pending));
  CHECK_EQ("no second expiry is pending", -1, sigtimedwait(&set, &info, &none));
  struct itimerspec next;
  MUST(syscall(SYS_timer_gettime, pending, &next));
  CHECK("the next expiry is %.3f s away", seconds(next.it_value) > 300 && seconds(next.it_value) <= 500, seconds(next.it_value));
  /* ids go on as they would have: the next one is greater than all that exist */
  int last = create(CLOCK_MONOTONIC, &skipped);
  CHECK("the next id (%d) is a new one", last > pending, last);
  return check_finish();
}
