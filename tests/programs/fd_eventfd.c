/* eventfds: counts, the semaphore kind, flags, and one that a child shares. "plain": only what CRIU restores, too. */
#include "tree.h"
#include <poll.h>
#include <sys/eventfd.h>

static uint64_t take(int fd) {
  uint64_t value = 0;
  return read(fd, &value, sizeof(value)) == sizeof(value) ? value : (uint64_t)-errno;
}
static void put(int fd, uint64_t value) { CHECK_EQ("write", 8, write(fd, &value, sizeof(value))); }

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain_only = argc > 2;
  int plain = (int)MUST(eventfd(5, EFD_NONBLOCK));
  int empty = (int)MUST(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  int semaphore = -1, drained = -1;
  if (!plain_only) {
    semaphore = (int)MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
    drained = (int)MUST(eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK));
  }
  int full = (int)MUST(eventfd(0, EFD_NONBLOCK));
  uint64_t most = plain_only ? UINT32_MAX : UINT64_MAX - 1;
  MUST(write(full, &most, 8));
  int shared = (int)MUST(eventfd(0, 0));
  int moved = (int)MUST(dup2(plain, 100));
  int owned = (int)MUST(eventfd(1, 0));
  MUST(fcntl(owned, F_SETOWN, getpid()));
  MUST(fcntl(owned, F_SETFL, O_NONBLOCK | O_APPEND));

  pid_t child = tree_fork("child");
  if (child == 0) {
    int own = (int)MUST(eventfd(77, EFD_NONBLOCK));
    close(plain);
    tree_tell();
    /* blocks until the root writes */
    uint64_t got = take(shared);
    CHECK_EQ("what the root has written", 42, got);
    CHECK_EQ("the child's own", 77, take(own));
    put(moved, 1000);
    tree_report(0);
  }
  tree_await("child");
  tree_await_state(child, 'S');
  check_ready();
  CHECK_EQ("plain", 5, take(moved));
  CHECK_EQ("plain is empty now", -EAGAIN, (int64_t)take(plain));
  CHECK_EQ("empty", -EAGAIN, (int64_t)take(empty));
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(empty, F_GETFD));
  if (!plain_only) {
    for (int i = 0; i < 3; i++) CHECK_EQ("semaphore", 1, take(semaphore));
    CHECK_EQ("semaphore is down", -EAGAIN, (int64_t)take(semaphore));
    put(drained, 2);
    CHECK_EQ("drained semaphore", 1, take(drained));
    CHECK_EQ("drained semaphore again", 1, take(drained));
    struct pollfd poll_full = {full, POLLOUT, 0};
    CHECK_EQ("nothing fits into the full one", 0, poll(&poll_full, 1, 0));
  }
  CHECK_EQ("full", (long long)most, take(full));
  CHECK_EQ("owner", getpid(), fcntl(owned, F_GETOWN));
  CHECK_EQ("flags", O_RDWR | O_NONBLOCK | O_APPEND, fcntl(owned, F_GETFL));
  put(shared, 42);
  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("what the child has added", 1000, take(plain));
  return check_finish();
}
