/*
 * A process with many established TCP connections on the loopback device, whose
 * other ends are in its child; and with pairs of Unix sockets.
 *
 * Usage: connections PAGE CONNECTIONS PAIRS
 *
 * PAGE         file of one page, mapped shared: what the benchmark reads and
 *              asks (page.h).
 * CONNECTIONS  of TCP: the child has connected, this process accepted.
 * PAIRS        of Unix sockets: this process has both ends.
 *
 * In every tenth there is something that nobody has read. The process reads the
 * clock without a pause. Asked, it sends a word through each connection and
 * pair; the child sends it back, until all its connections are closed.
 */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <sys/poll.h>
#include <sys/socket.h>

#include "page.h"

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

static uint64_t count;
static int *own, *theirs;

static void say(uint64_t i, uint64_t word) {
  MUST(write(theirs[i] < 0 ? own[i] : theirs[i], &word, sizeof word));
}

/* What comes is not read until the program is asked. */
static void leave_unread(void) {
  for (uint64_t i = 0; i < count; i += 10) say(i, i);
  for (uint64_t i = 0; i < count; i += 10) {
    struct pollfd ready = {own[i], POLLIN, 0};
    page->wrong += poll(&ready, 1, 10000) != 1;
  }
}

static void check(uint64_t number) {
  uint64_t wrong = 0, word;
  for (uint64_t i = 0; i < count; i += 10)
    wrong += !hear(own[i], &word) || word != i;
  for (uint64_t i = 0; i < count; i++) say(i, i ^ number << 32);
  for (uint64_t i = 0; i < count; i++)
    wrong += !hear(own[i], &word) || word != (i ^ number << 32);
  page->wrong = wrong;
  leave_unread();
  page->threads = 1;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: connections PAGE CONNECTIONS PAIRS\n");
    return 2;
  }
  open_page(argv[1]);
  uint64_t connections = strtoull(argv[2], NULL, 10);
  count = connections + strtoull(argv[3], NULL, 10);
  raise_file_limit();
  own = calloc(count, sizeof *own);
  theirs = calloc(count, sizeof *theirs);
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
  leave_unread();
  run(NULL, check);
}
