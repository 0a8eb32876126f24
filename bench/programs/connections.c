/*
 * A process with many established TCP connections on the loopback device, whose
 * other ends are in its child; and with pairs of Unix sockets.
 *
 * Usage: connections PAGE CONNECTIONS PAIRS
 *
 * PAGE         file of one page, mapped shared: what the benchmark reads and
 *              asks; the same words as those of load.c.
 * CONNECTIONS  of TCP: the child has connected, this process accepted.
 * PAIRS        of Unix sockets: this process has both ends.
 *
 * In every tenth there is something that nobody has read. The process reads the
 * clock without a pause. Asked, it sends a word through each connection and
 * pair; the child sends it back, until all its connections are closed.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
#define PAUSE 100000

struct page {
  volatile uint64_t ready;
  volatile uint64_t loops;    /* readings of the clock */
  volatile uint64_t gap;      /* ns between two readings, the largest */
  volatile uint64_t paused;   /* ns, sum of all gaps longer than PAUSE */
  volatile uint64_t pauses;   /* how many they were */
  volatile uint64_t now;      /* CLOCK_MONOTONIC, the latest reading */
  volatile uint64_t question; /* the benchmark counts it up: check all */
  volatile uint64_t answer;   /* the question that was answered last */
  volatile uint64_t wrong;    /* connections that are not as they should be */
  volatile uint64_t threads;  /* processes that answered right */
};

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static long must(long value, const char *what) {
  if (value < 0) {
    perror(what);
    exit(1);
  }
  return value;
}
#define MUST(call) must((long)(call), #call)

/* Reads a word, which comes within a while. */
static int hear(int fd, uint64_t *word) {
  struct pollfd ready = {fd, POLLIN, 0};
  return poll(&ready, 1, 5000) == 1 && read(fd, word, sizeof *word) == sizeof *word;
}

static void echo(struct pollfd *ready, uint64_t count) {
  for (uint64_t open = count; open > 0;) {
    poll(ready, count, -1);
    for (uint64_t i = 0; i < count; i++) {
      uint64_t word;
      if (ready[i].fd < 0 || !ready[i].revents) continue;
      if (read(ready[i].fd, &word, sizeof word) == sizeof word &&
          write(ready[i].fd, &word, sizeof word) == sizeof word)
        continue;
      close(ready[i].fd);
      ready[i].fd = -1;
      open--;
    }
  }
  exit(0);
}

/* The other end of all connections. */
static void connect_all(int listener, const struct sockaddr_in *address,
                        uint64_t count) {
  if (MUST(fork()) > 0) return;
  close(listener);
  struct pollfd *ends = calloc(count, sizeof *ends);
  for (uint64_t i = 0; i < count; i++) {
    ends[i] = (struct pollfd){MUST(socket(AF_INET, SOCK_STREAM, 0)), POLLIN, 0};
    MUST(connect(ends[i].fd, (const struct sockaddr *)address, sizeof *address));
  }
  echo(ends, count);
}

static void say(const int *own, const int *theirs, uint64_t i, uint64_t word) {
  MUST(write(theirs[i] < 0 ? own[i] : theirs[i], &word, sizeof word));
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: connections PAGE CONNECTIONS PAIRS\n");
    return 2;
  }
  int file = MUST(open(argv[1], O_RDWR));
  struct page *page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) MUST(-1);
  close(file);
  uint64_t connections = strtoull(argv[2], NULL, 10), count = connections + strtoull(argv[3], NULL, 10);
  struct rlimit limit;
  MUST(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &limit));
  int *own = calloc(count, sizeof *own), *theirs = calloc(count, sizeof *theirs);
  int listener = MUST(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
  MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  struct sockaddr_in address = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
  socklen_t length = sizeof address;
  MUST(bind(listener, (struct sockaddr *)&address, length));
  MUST(getsockname(listener, (struct sockaddr *)&address, &length));
  MUST(listen(listener, 1024));
  connect_all(listener, &address, connections);
  for (uint64_t i = 0; i < count; i++) {
    int pair[2] = {-1, -1};
    if (i < connections) pair[0] = MUST(accept(listener, NULL, NULL));
    else MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    own[i] = pair[0], theirs[i] = pair[1];
  }
  /* what comes is not read until the program is asked */
  for (uint64_t i = 0; i < count; i += 10) say(own, theirs, i, i);
  for (uint64_t i = 0; i < count; i += 10) {
    struct pollfd ready = {own[i], POLLIN, 0};
    if (poll(&ready, 1, 10000) != 1) return 1;
  }

  uint64_t last = now();
  page->ready = 1;
  for (;;) {
    uint64_t t = now(), gap = t - last;
    last = t;
    if (gap > page->gap) page->gap = gap;
    if (gap > PAUSE) {
      page->paused += gap;
      page->pauses++;
    }
    page->loops++;
    page->now = t;
    uint64_t number = page->question;
    if (number != page->answer) {
      uint64_t wrong = 0, word;
      for (uint64_t i = 0; i < count; i += 10) {
        wrong += !hear(own[i], &word) || word != i;
      }
      for (uint64_t i = 0; i < count; i++) say(own, theirs, i, i ^ number << 32);
      for (uint64_t i = 0; i < count; i++) {
        wrong += !hear(own[i], &word) || word != (i ^ number << 32);
      }
      for (uint64_t i = 0; i < count; i += 10) say(own, theirs, i, i);
      for (uint64_t i = 0; i < count; i += 10) {
        struct pollfd ready = {own[i], POLLIN, 0};
        wrong += poll(&ready, 1, 10000) != 1;
      }
      page->threads = 1;
      page->wrong = wrong;
      page->answer = number;
      last = now();
    }
  }
}
