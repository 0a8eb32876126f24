/* Threads in epoll_wait with and without a timeout: neither ends with EINTR. */
#include "check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int poller, timed_poller, event;
static struct {
  pthread_t id;
  atomic_int tid;
  int value, error;
  double took;
} waits[2];

static void *run(void *argument) {
  int i = (int)(long)argument;
  struct epoll_event got;
  double start = check_seconds();
  atomic_store(&waits[i].tid, check_tid());
  waits[i].value = epoll_wait(i ? timed_poller : poller, &got, 1, i ? 4000 : -1);
  waits[i].error = errno;
  waits[i].took = check_seconds() - start;
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  poller = (int)MUST(epoll_create1(0));
  timed_poller = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
  event = (int)MUST(eventfd(0, 0));
  MUST(epoll_ctl(poller, EPOLL_CTL_ADD, event, &(struct epoll_event){.events = EPOLLIN, .data.u64 = 42}));
  for (long i = 0; i < 2; i++) {
    MUST0(pthread_create(&waits[i].id, NULL, run, (void *)i));
    while (!atomic_load(&waits[i].tid)) check_sleep_ms(1);
    check_until_asleep(waits[i].tid);
  }
  check_ready();
  check_sleep_ms(50);
  MUST(eventfd_write(event, 1));
  for (int i = 0; i < 2; i++) {
    MUST0(pthread_join(waits[i].id, NULL));
    CHECK_EQ("value of epoll_wait %d", i ? 0 : 1, waits[i].value, i);
    if (waits[i].value < 0) CHECK_EQ("errno of epoll_wait %d", 0, waits[i].error, i);
  }
  CHECK("epoll_wait with a timeout took %.3f s", waits[1].took >= 3.998, waits[1].took);
  return check_finish();
}
