/* Words that a program sends through its sockets, and expects at the other ends. */
#ifndef WORDS_H
#define WORDS_H
#include "check.h"
#include <poll.h>
#include <sys/socket.h>

static void put(int fd, const char *text) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text)) check_die("send: %s", strerror(errno));
}
static void expect(const char *name, int fd, const char *text) {
  char got[256] = {0};
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 5000), name);
  CHECK_EQ("%s: length", (long)strlen(text), (long)recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), name);
  CHECK_STRING(name, text, got);
}

#endif
