/*
 * A tree with many descriptors of mixed kinds, beside one busy process in it
 * that measures how long it was stopped.
 *
 * Usage: descriptors PAGE DIRECTORY CHILDREN INHERITED OWN
 *
 * PAGE        file of one page, mapped shared: what the benchmark reads and
 *             asks (page.h).
 * DIRECTORY   where its files are.
 * CHILDREN    forked processes that sleep until they are asked.
 * INHERITED   sets of descriptors made before the children were forked: all
 *             processes have them, with the same open files behind them.
 * OWN         sets that each process has made for itself.
 *
 * A set is of 20 descriptors: five files and a duplicate of one, two pipes,
 * three eventfds and an epoll that watches them, a timerfd, a signalfd, a pair
 * of Unix sockets, a UDP socket, and a memfd. The first process reads the clock
 * without a pause. Asked, it signals each child; all check their own sets, and
 * the first one the inherited ones.
 */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "page.h"

#define NAMES 100
#define MEMBERS 20

/* What a set is made of; `all` has the numbers in this order. */
union set {
  int all[MEMBERS];
  struct {
    int files[5], again, full[2], empty[2], events[3], epoll, timer, signals;
    int pair[2], udp, memory;
  };
};

static const char *directory;
static struct children children;
static uint64_t inherited, own;
static union set *all, *sets;

static void fill(char *text, uint64_t number) {
  for (int i = 0; i < SIZE; i++) text[i] = (char)(number * 31 + i * 7);
}

static union set make_set(uint64_t number) {
  union set s;
  char text[SIZE], name[4096];
  fill(text, number);
  for (int i = 0; i < 5; i++) {
    snprintf(name, sizeof name, "%s/file-%lu", directory,
             (number * 5 + i) % NAMES);
    s.files[i] = MUST(open(name, O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(s.files[i], SIZE));
    MUST(lseek(s.files[i], (number + i) % SIZE, SEEK_SET));
  }
  s.again = MUST(fcntl(s.files[0], F_DUPFD_CLOEXEC, 0));
  MUST(pipe(s.full));
  MUST(write(s.full[1], text, 1000));
  MUST(pipe2(s.empty, O_NONBLOCK | O_CLOEXEC));
  s.epoll = MUST(epoll_create1(EPOLL_CLOEXEC));
  for (int i = 0; i < 3; i++) {
    s.events[i] = MUST(eventfd(number + i + 1, EFD_NONBLOCK));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = number + i};
    MUST(epoll_ctl(s.epoll, EPOLL_CTL_ADD, s.events[i], &event));
  }
  s.timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  struct itimerspec far = {{1000, 0}, {100000 + number, 0}};
  MUST(timerfd_settime(s.timer, 0, &far, NULL));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  s.signals = MUST(signalfd(-1, &set, SFD_NONBLOCK));
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s.pair));
  MUST(write(s.pair[0], text, 100));
  s.udp = MUST(socket(AF_INET, SOCK_DGRAM, 0));
  struct sockaddr_in loopback = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
  MUST(bind(s.udp, (struct sockaddr *)&loopback, sizeof loopback));
  s.memory = MUST(memfd_create("memory", 0));
  MUST(write(s.memory, text, SIZE));
  return s;
}

static int is_right(const union set *s, uint64_t number) {
  char text[SIZE], found[SIZE];
  fill(text, number);
  for (int i = 0; i < 5; i++)
    if (lseek(s->files[i], 0, SEEK_CUR) != (off_t)((number + i) % SIZE))
      return 0;
  if (lseek(s->again, 0, SEEK_CUR) != (off_t)(number % SIZE)) return 0;
  int full = 0, empty = 1;
  if (ioctl(s->full[0], FIONREAD, &full) || full != 1000) return 0;
  if (ioctl(s->empty[0], FIONREAD, &empty) || empty != 0) return 0;
  struct epoll_event events[4];
  if (epoll_wait(s->epoll, events, 4, 0) != 3) return 0;
  for (int i = 0; i < 3; i++) {
    uint64_t count = 0;
    if (read(s->events[i], &count, 8) != 8 || count != number + i + 1 ||
        write(s->events[i], &count, 8) != 8)
      return 0;
  }
  struct itimerspec left;
  if (timerfd_gettime(s->timer, &left) || left.it_interval.tv_sec != 1000)
    return 0;
  if (read(s->signals, found, SIZE) != -1) return 0;
  if (recv(s->pair[1], found, SIZE, MSG_PEEK | MSG_DONTWAIT) != 100 ||
      memcmp(found, text, 100))
    return 0;
  struct sockaddr_in own;
  socklen_t length = sizeof own;
  if (getsockname(s->udp, (struct sockaddr *)&own, &length) || !own.sin_port)
    return 0;
  return pread(s->memory, found, SIZE, 0) == SIZE &&
         !memcmp(found, text, SIZE);
}

static uint64_t wrong(const union set *sets, uint64_t count, uint64_t first) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) sum += !is_right(&sets[i], first + i);
  return sum;
}

static union set *make_all(uint64_t count, uint64_t first) {
  union set *made = calloc(count + 1, sizeof *made);
  for (uint64_t i = 0; i < count; i++) made[i] = make_set(first + i);
  return made;
}

/* Answers are counted up; a child that finds anything wrong does not answer. */
static void child(uint64_t number, uint64_t first) {
  sets = make_all(own, first);
  children.answers[number] = 1;
  for (;;) {
    await_question();
    if (!wrong(sets, own, first)) children.answers[number]++;
  }
}

static void check(uint64_t question) {
  (void)question;
  page->threads = ask(&children) + 1;
  page->wrong = wrong(all, inherited, 0) + wrong(sets, own, inherited);
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: descriptors PAGE DIRECTORY CHILDREN INHERITED OWN\n");
    return 2;
  }
  open_page(argv[1]);
  directory = argv[2];
  inherited = strtoull(argv[4], NULL, 10);
  own = strtoull(argv[5], NULL, 10);
  raise_file_limit();
  children = expect_children(strtoull(argv[3], NULL, 10));
  all = make_all(inherited, 0);
  for (uint64_t i = 0; i < children.count; i++) {
    children.pids[i] = MUST(fork());
    if (children.pids[i] == 0) child(i, inherited + (i + 1) * own);
    while (!children.answers[i]) usleep(100);
  }
  sets = make_all(own, inherited);
  run(NULL, check);
}
