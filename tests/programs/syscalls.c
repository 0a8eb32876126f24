/*
 * One thread in each kind of waiting that needs no descriptor. None may end early, none with EINTR; what waits for a
 * time waits at least as long as asked, what waits for an event gets the event.
 */
#include "check.h"
#include <linux/futex.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/select.h>

#define SECONDS 4

struct waiter;
typedef long wait_function(struct waiter *);

struct waiter {
  const char *name;
  wait_function *wait;
  void (*wake)(struct waiter *); /* NULL: it waits for a time */
  long value;                    /* expected */
  int error;                     /* expected when value is -1 */
  pthread_t id;
  atomic_int tid;
  double start, end;
  long got;
  int got_error;
  int woken_before_end;
  int mask_kept;
  atomic_int woken;
  uint32_t word;
  sem_t semaphore;
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  int signaled;
};

static void on_signal(int sig) { (void)sig; }

static struct timespec in_seconds(clockid_t clock, int seconds) {
  struct timespec t;
  clock_gettime(clock, &t);
  t.tv_sec += seconds;
  return t;
}
static const struct timespec span = {SECONDS, 0};

static long wait_poll(struct waiter *w) { (void)w; return poll(NULL, 0, SECONDS * 1000); }
static long wait_poll_forever(struct waiter *w) { (void)w; return poll(NULL, 0, -1); }
static long wait_ppoll(struct waiter *w) { (void)w; return ppoll(NULL, 0, &span, NULL); }
static long wait_ppoll_mask(struct waiter *w) {
  (void)w;
  sigset_t mask;
  sigfillset(&mask);
  sigdelset(&mask, SIGUSR1);
  return ppoll(NULL, 0, NULL, &mask);
}
static long wait_select(struct waiter *w) {
  (void)w;
  struct timeval t = {SECONDS, 0};
  return select(0, NULL, NULL, NULL, &t);
}
static long wait_select_forever(struct waiter *w) { (void)w; return select(0, NULL, NULL, NULL, NULL); }
static long wait_pselect(struct waiter *w) { (void)w; return pselect(0, NULL, NULL, NULL, &span, NULL); }
static long wait_pselect_mask(struct waiter *w) {
  (void)w;
  sigset_t mask;
  sigfillset(&mask);
  sigdelset(&mask, SIGUSR1);
  return pselect(0, NULL, NULL, NULL, NULL, &mask);
}
static long wait_nanosleep(struct waiter *w) { (void)w; struct timespec left; return nanosleep(&span, &left); }
static long clock_sleep(clockid_t clock, int flags) {
  struct timespec t = flags ? in_seconds(clock, SECONDS) : span;
  return syscall(SYS_clock_nanosleep, clock, flags, &t, NULL);
}
static long wait_monotonic(struct waiter *w) { (void)w; return clock_sleep(CLOCK_MONOTONIC, 0); }
static long wait_monotonic_absolute(struct waiter *w) { (void)w; return clock_sleep(CLOCK_MONOTONIC, TIMER_ABSTIME); }
static long wait_realtime(struct waiter *w) { (void)w; return clock_sleep(CLOCK_REALTIME, 0); }
static long wait_realtime_absolute(struct waiter *w) { (void)w; return clock_sleep(CLOCK_REALTIME, TIMER_ABSTIME); }
static long wait_boottime(struct waiter *w) { (void)w; return clock_sleep(CLOCK_BOOTTIME, 0); }
static long wait_tai_absolute(struct waiter *w) { (void)w; return clock_sleep(CLOCK_TAI, TIMER_ABSTIME); }
static long wait_futex(struct waiter *w) { return syscall(SYS_futex, &w->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); }
static long wait_futex_time(struct waiter *w) { return syscall(SYS_futex, &w->word, FUTEX_WAIT, 0, &span, NULL, 0); }
static long wait_futex_bitset(struct waiter *w) {
  struct timespec t = in_seconds(CLOCK_MONOTONIC, SECONDS);
  return syscall(SYS_futex, &w->word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, 0x10);
}
static long wait_futex_bitset_forever(struct waiter *w) {
  return syscall(SYS_futex, &w->word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0x10);
}
struct vector {
  uint64_t value, address;
  uint32_t flags, reserved;
};
static long wait_futex_vector(struct waiter *w) {
  struct vector v[2] = {{0, (uint64_t)(uintptr_t)&w->word, 2, 0}, {0, (uint64_t)(uintptr_t)&w->signaled, 2, 0}};
  return syscall(449, v, 2, 0, NULL, CLOCK_MONOTONIC);
}
static long wait_semaphore(struct waiter *w) { return sem_wait(&w->semaphore); }
static long wait_semaphore_time(struct waiter *w) {
  struct timespec t = in_seconds(CLOCK_REALTIME, SECONDS);
  return sem_timedwait(&w->semaphore, &t);
}
static long wait_condition(struct waiter *w) {
  pthread_mutex_lock(&w->mutex);
  long value = 0;
  while (!w->signaled && !value) value = pthread_cond_wait(&w->condition, &w->mutex);
  pthread_mutex_unlock(&w->mutex);
  return value;
}
static long wait_condition_time(struct waiter *w) {
  struct timespec t = in_seconds(CLOCK_REALTIME, SECONDS);
  pthread_mutex_lock(&w->mutex);
  long value = pthread_cond_timedwait(&w->condition, &w->mutex, &t);
  pthread_mutex_unlock(&w->mutex);
  return value;
}
static long wait_mutex(struct waiter *w) {
  long value = pthread_mutex_lock(&w->mutex);
  pthread_mutex_unlock(&w->mutex);
  return value;
}
static pthread_mutex_t inheriting;
static long wait_inheriting(struct waiter *w) {
  (void)w;
  long value = pthread_mutex_lock(&inheriting);
  pthread_mutex_unlock(&inheriting);
  return value;
}
static long wait_signal(struct waiter *w) {
  (void)w;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  return sigwaitinfo(&set, NULL);
}
static long wait_signal_time(struct waiter *w) {
  (void)w;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  return sigtimedwait(&set, NULL, &span);
}
static long wait_suspend(struct waiter *w) {
  (void)w;
  sigset_t mask;
  sigfillset(&mask);
  sigdelset(&mask, SIGUSR1);
  return sigsuspend(&mask);
}
static long wait_pause(struct waiter *w) { (void)w; return pause(); }

static void wake_signal(struct waiter *w) { pthread_kill(w->id, SIGUSR1); }
static void wake_usr2(struct waiter *w) { pthread_kill(w->id, SIGUSR2); }
static void wake_futex(struct waiter *w) {
  syscall(SYS_futex, &w->word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 0x10);
  syscall(SYS_futex, &w->word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0x10);
}
static void wake_semaphore(struct waiter *w) { sem_post(&w->semaphore); }
static void wake_condition(struct waiter *w) {
  pthread_mutex_lock(&w->mutex);
  w->signaled = 1;
  pthread_cond_signal(&w->condition);
  pthread_mutex_unlock(&w->mutex);
}
static void wake_mutex(struct waiter *w) { pthread_mutex_unlock(&w->mutex); }
static void wake_inheriting(struct waiter *w) { (void)w; pthread_mutex_unlock(&inheriting); }

static struct waiter waiters[] = {
    {.name = "poll with a timeout", .wait = wait_poll},
    {.name = "poll without a timeout", .wait = wait_poll_forever, .wake = wake_signal, .value = -1, .error = EINTR},
    {.name = "ppoll with a timeout", .wait = wait_ppoll},
    {.name = "ppoll with a mask", .wait = wait_ppoll_mask, .wake = wake_signal, .value = -1, .error = EINTR},
    {.name = "select with a timeout", .wait = wait_select},
    {.name = "select without a timeout", .wait = wait_select_forever, .wake = wake_signal, .value = -1, .error = EINTR},
    {.name = "pselect with a timeout", .wait = wait_pselect},
    {.name = "pselect with a mask", .wait = wait_pselect_mask, .wake = wake_signal, .value = -1, .error = EINTR},
    {.name = "nanosleep", .wait = wait_nanosleep},
    {.name = "clock_nanosleep, monotonic", .wait = wait_monotonic},
    {.name = "clock_nanosleep, monotonic, absolute", .wait = wait_monotonic_absolute},
    {.name = "clock_nanosleep, realtime", .wait = wait_realtime},
    {.name = "clock_nanosleep, realtime, absolute", .wait = wait_realtime_absolute},
    {.name = "clock_nanosleep, boottime", .wait = wait_boottime},
    {.name = "clock_nanosleep, TAI, absolute", .wait = wait_tai_absolute},
    {.name = "futex", .wait = wait_futex, .wake = wake_futex},
    {.name = "futex with a timeout", .wait = wait_futex_time, .value = -1, .error = ETIMEDOUT},
    {.name = "futex bitset with a timeout", .wait = wait_futex_bitset, .value = -1, .error = ETIMEDOUT},
    {.name = "futex bitset", .wait = wait_futex_bitset_forever, .wake = wake_futex},
    {.name = "futex_waitv", .wait = wait_futex_vector, .wake = wake_futex},
    {.name = "sem_wait", .wait = wait_semaphore, .wake = wake_semaphore},
    {.name = "sem_timedwait", .wait = wait_semaphore_time, .value = -1, .error = ETIMEDOUT},
    {.name = "pthread_cond_wait", .wait = wait_condition, .wake = wake_condition},
    {.name = "pthread_cond_timedwait", .wait = wait_condition_time, .value = ETIMEDOUT},
    {.name = "pthread_mutex_lock", .wait = wait_mutex, .wake = wake_mutex},
    {.name = "pthread_mutex_lock with priority inheritance", .wait = wait_inheriting, .wake = wake_inheriting},
    {.name = "sigwaitinfo", .wait = wait_signal, .wake = wake_usr2, .value = SIGUSR2},
    {.name = "sigtimedwait", .wait = wait_signal_time, .value = -1, .error = EAGAIN},
    {.name = "sigsuspend", .wait = wait_suspend, .wake = wake_signal, .value = -1, .error = EINTR},
    {.name = "pause", .wait = wait_pause, .wake = wake_signal, .value = -1, .error = EINTR},
};
enum { WAITERS = sizeof(waiters) / sizeof(waiters[0]) };

static void *run(void *argument) {
  struct waiter *w = argument;
  sigset_t mask, after;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  sigaddset(&mask, SIGRTMIN + 3);
  sigaddset(&mask, SIGWINCH);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  w->start = check_seconds();
  atomic_store(&w->tid, check_tid());
  w->got = w->wait(w);
  w->got_error = errno;
  w->end = check_seconds();
  w->woken_before_end = atomic_load(&w->woken);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  w->mask_kept = memcmp(&mask, &after, 8) == 0;
  check_wait_go();
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct sigaction action = {.sa_handler = on_signal};
  MUST(sigaction(SIGUSR1, &action, NULL));
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  MUST0(pthread_mutex_init(&inheriting, &attributes));
  MUST0(pthread_mutex_lock(&inheriting));
  for (int i = 0; i < WAITERS; i++) {
    struct waiter *w = &waiters[i];
    sem_init(&w->semaphore, 0, 0);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->condition, NULL);
    if (w->wake == wake_mutex) pthread_mutex_lock(&w->mutex);
    MUST0(pthread_create(&w->id, NULL, run, w));
  }
  for (int i = 0; i < WAITERS; i++) {
    while (!atomic_load(&waiters[i].tid)) check_sleep_ms(1);
    check_until_asleep(waiters[i].tid);
  }

  check_ready();

  check_sleep_ms(50);
  for (int i = 0; i < WAITERS; i++)
    if (waiters[i].wake) {
      atomic_store(&waiters[i].woken, 1);
      waiters[i].wake(&waiters[i]);
    }
  for (int i = 0; i < WAITERS; i++) {
    struct waiter *w = &waiters[i];
    /* a wake-up by futex is lost on a call that is about to be restarted, so it is repeated */
    double end = check_seconds() + 3 * SECONDS;
    int running;
    while ((running = pthread_tryjoin_np(w->id, NULL)) && check_seconds() < end) {
      if (w->wake == wake_futex) wake_futex(w);
      check_sleep_ms(1);
    }
    if (running) {
      CHECK("%s ends", false, w->name);
      continue;
    }
    CHECK_EQ("value of %s", w->value, w->got, w->name);
    if (w->value == -1 && w->got == -1) CHECK_EQ("errno of %s", w->error, w->got_error, w->name);
    if (w->got == -1 && w->value != -1) CHECK_EQ("errno of %s", 0, w->got_error, w->name);
    if (w->wake) CHECK("%s did not end by itself", w->woken_before_end, w->name);
    /* the clocks of the timeouts may differ by a hair from the one it is measured with */
    if (!w->wake) CHECK("%s waited %d s and not %.3f", w->end - w->start >= SECONDS - 0.002, w->name, SECONDS, w->end - w->start);
    CHECK("signal mask after %s", w->mask_kept, w->name);
  }
  return check_finish();
}
