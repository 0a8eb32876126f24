/*
 * epoll: what is watched and how, nested instances, numbers that were closed or used again since, entries that have
 * fired, and one instance that a child shares. "plain": only what CRIU restores, too.
 */
#include "tree.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void add(int epoll, int fd, uint32_t events, uint64_t data) {
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){events, {.u64 = data}}));
}
/** What is told at once, as a set of the low bits of the data. */
static uint64_t ready(int epoll) {
  struct epoll_event events[32];
  uint64_t all = 0;
  int n = epoll_wait(epoll, events, 32, 0);
  for (int i = 0; i < n; i++) all |= 1ull << (events[i].data.u64 & 63);
  return n < 0 ? (uint64_t)-errno : all;
}
static void put(int fd) { CHECK_EQ("write to %d", 8, write(fd, &(uint64_t){1}, 8), fd); }
static void take(int fd) {
  uint64_t value;
  CHECK_EQ("read of %d", 8, read(fd, &value, 8), fd);
}
static int compare(const void *a, const void *b) { return strcmp(a, b); }
/** The lines of fdinfo that tell what is watched, in order. */
static int lines(int epoll, char *text, size_t size) {
  char path[64], line[256], found[32][128];
  int n = 0;
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
  FILE *file = fopen(path, "re");
  text[0] = 0;
  while (file && n < 32 && fgets(line, sizeof(line), file))
    if (!strncmp(line, "tfd:", 4)) snprintf(found[n++], sizeof(found[0]), "%.*s", (int)(strstr(line, " pos:") - line), line);
  qsort(found, (size_t)n, sizeof(found[0]), compare);
  for (int i = 0; i < n; i++) snprintf(text + strlen(text), size - strlen(text), "%s\n", found[i]);
  if (file) fclose(file);
  return n;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain = argc > 2;
  int epoll = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
  int fds[6];
  for (int i = 0; i < 6; i++) fds[i] = (int)MUST(eventfd(0, EFD_NONBLOCK));
  int ends[2];
  MUST(pipe(ends));
  add(epoll, fds[0], EPOLLIN, 0xdeadbeef00000000);
  add(epoll, fds[1], EPOLLIN | EPOLLET, 1);
  add(epoll, fds[2], EPOLLIN | EPOLLEXCLUSIVE, 2);
  add(epoll, ends[0], EPOLLIN | EPOLLRDHUP, 3);
  /* fires at once, and is quiet from then on */
  add(epoll, fds[3], plain ? EPOLLPRI | EPOLLONESHOT : EPOLLOUT | EPOLLONESHOT, 4);
  if (!plain) CHECK_EQ("the one that fires", 1 << 4, ready(epoll));
  add(epoll, fds[4], EPOLLIN | EPOLLONESHOT, 5);
  /* the same file by two numbers, one of them closed, one given to another file */
  int second = (int)MUST(dup2(fds[5], 50)), third = (int)MUST(dup2(fds[5], 51));
  add(epoll, fds[5], EPOLLIN, 6);
  add(epoll, second, EPOLLIN, 7);
  int reused = plain ? 52 : third;
  if (!plain) {
    add(epoll, third, EPOLLIN, 8);
    close(second);
  }
  MUST(dup2(fds[0], reused));
  add(epoll, reused, EPOLLIN, 9);
  int inner = (int)MUST(epoll_create1(0)), outer = (int)MUST(epoll_create1(0));
  add(outer, inner, EPOLLIN, 11);
  add(inner, fds[0], EPOLLIN, 10);
  /* its own number is that of what it watches */
  int odd = (int)MUST(epoll_create1(0));
  MUST(dup2(fds[1], 60));
  add(odd, 60, EPOLLIN, 12);
  if (!plain) {
    MUST(dup2(odd, 60));
    close(odd), odd = 60;
  }

  int theirs[2];
  MUST(pipe(theirs));
  int shared = (int)MUST(epoll_create1(0)), common = (int)MUST(eventfd(0, EFD_NONBLOCK));
  pid_t child = tree_fork("child");
  if (child == 0) {
    /* only the child has this file, and the number is that of another in the root */
    int own = (int)MUST(eventfd(0, EFD_NONBLOCK));
    close(theirs[0]), close(theirs[1]);
    int number = plain ? common : (int)MUST(dup2(own, ends[1]));
    add(shared, number, EPOLLIN, 20);
    close(own);
    tree_settled();
    CHECK_EQ("of the child", 0, ready(shared));
    put(number);
    CHECK_EQ("of the child, written", 1 << 20, ready(shared));
    check_write_file("report-written", "ok\n", 3);
    while (!tree_exists("report-seen", "")) check_sleep_ms(1);
    CHECK_EQ("removed by its number", 0, epoll_ctl(shared, EPOLL_CTL_DEL, number, NULL));
    tree_report(0);
  }
  tree_await("child");
  char before[4096], after[4096];
  CHECK_EQ("entries", plain ? 9 : 10, lines(epoll, before, sizeof(before)));
  check_ready();
  lines(epoll, after, sizeof(after));
  CHECK_STRING("what is watched", before, after);
  CHECK_EQ("nothing is ready", 0, ready(epoll));
  CHECK_EQ("nothing is ready inside", 0, ready(outer));
  put(fds[0]);
  struct epoll_event event = {0, {0}};
  CHECK_EQ("inside", 1, epoll_wait(inner, &event, 1, 0));
  CHECK_EQ("two ways to one file", 1 << 0 | 1 << 9, ready(epoll));
  CHECK_EQ("nested", 1 << 11, ready(outer));
  take(fds[0]);
  put(fds[1]);
  CHECK_EQ("an edge", 1 << 1, ready(epoll));
  CHECK_EQ("no second one", 0, ready(epoll));
  CHECK_EQ("by the number of its own", 1 << 12, ready(odd));
  take(fds[1]);
  put(fds[2]);
  CHECK_EQ("exclusive", 1 << 2, ready(epoll));
  take(fds[2]);
  put(fds[3]);
  CHECK_EQ("has fired before", 0, ready(epoll));
  MUST(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[3], &(struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 14}}));
  CHECK_EQ("armed again", 1 << 14, ready(epoll));
  put(fds[4]);
  CHECK_EQ("fires once", 1 << 5, ready(epoll));
  CHECK_EQ("and no more", 0, ready(epoll));
  put(fds[5]);
  CHECK_EQ("by three numbers", 1 << 6 | 1 << 7 | (plain ? 0 : 1 << 8), ready(epoll));
  CHECK_EQ("a closed number cannot be removed", plain ? 0 : -1, epoll_ctl(epoll, EPOLL_CTL_DEL, 50, NULL));
  take(fds[5]);
  close(ends[1]);
  tree_collect("written");
  CHECK_EQ("what the child has written", 1 << 20, ready(shared));
  check_write_file("report-seen", "ok\n", 3);
  tree_collect("child");
  tree_wait(child, 0);
  CHECK_EQ("the pipe's end", 1 << 3, ready(epoll));
  CHECK_EQ("removed", 0, ready(shared));
  return check_finish();
}
