/* signalfds: masks, flags, a blocked reader, and one that a child shares. */
#include "tree.h"
#include <sys/epoll.h>
#include <sys/signalfd.h>

static int take(int fd) {
  struct signalfd_siginfo info;
  ssize_t n = read(fd, &info, sizeof(info));
  return n == sizeof(info) ? (int)info.ssi_signo : -errno;
}

static int blocking;
static atomic_int reader, got;
static void *read_blocked(void *unused) {
  atomic_store(&reader, check_tid());
  atomic_store(&got, take(blocking));
  return unused;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  sigset_t all, some;
  sigfillset(&all);
  MUST0(pthread_sigmask(SIG_SETMASK, &all, NULL));
  sigemptyset(&some);
  sigaddset(&some, SIGUSR1), sigaddset(&some, SIGRTMAX);
  int fd = (int)MUST(signalfd(-1, &some, SFD_NONBLOCK | SFD_CLOEXEC));
  sigemptyset(&some);
  int none = (int)MUST(signalfd(-1, &some, SFD_NONBLOCK));
  sigaddset(&some, SIGWINCH);
  blocking = (int)MUST(signalfd(-1, &some, 0));
  int epoll = (int)MUST(epoll_create1(0));
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.u64 = 9}}));
  MUST(raise(SIGRTMAX));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, read_blocked, NULL));
  while (!atomic_load(&reader)) check_sleep_ms(1);
  check_until_asleep(reader);

  pid_t child = tree_fork("child");
  if (child == 0) {
    MUST(raise(SIGUSR1));
    tree_settled();
    CHECK_EQ("of the child", SIGUSR1, take(fd));
    CHECK_EQ("no more of the child", -EAGAIN, take(fd));
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  struct epoll_event event = {0, {0}};
  CHECK_EQ("epoll", 1, epoll_wait(epoll, &event, 1, 1000));
  CHECK_EQ("its data", 9, event.data.u64);
  CHECK_EQ("pending", SIGRTMAX, take(fd));
  CHECK_EQ("no more", -EAGAIN, take(fd));
  MUST(raise(SIGUSR1));
  CHECK_EQ("epoll again", 1, epoll_wait(epoll, &event, 1, 1000));
  CHECK_EQ("a new one", SIGUSR1, take(fd));
  CHECK_EQ("none", -EAGAIN, take(none));
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(fd, F_GETFD));
  MUST(kill(getpid(), SIGWINCH));
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("the blocked read", SIGWINCH, atomic_load(&got));
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
