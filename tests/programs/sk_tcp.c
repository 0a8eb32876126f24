/*
 * TCP connections with both ends in the tree: IPv4, IPv6 and mapped, with bytes in every queue, also more than the
 * receiver has room for; half-shut from either side, or shut by both before the last byte is acknowledged; with options; one whose other end a child has. After the restore
 * not a byte is lost, repeated or changed, what was shut is shut, and new bytes go through in both directions.
 */
#include "tree.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { PATIENCE_MS = 20000, LARGEST = 8 << 20 };

struct end {
  int fd;
  size_t sent, received; /* bytes so far */
  uint64_t seed;         /* of what it sends */
};
struct connection {
  const char *name;
  int family; /* -1: AF_INET6 with mapped addresses */
  struct end ends[2];
};

static unsigned char *bytes_of_all;
static uint64_t next_seed;

/** No two of them are the same for long. */
static const unsigned char *pattern(uint64_t seed) { return bytes_of_all + seed * 4099; }
static void set(int fd, int level, int name, int value) { MUST(setsockopt(fd, level, name, &value, sizeof(value))); }
static int get(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  MUST(getsockopt(fd, level, name, &value, &length));
  return value;
}
static int state(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof(info);
  MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
  return info.tcpi_state;
}
static void wait_state(int fd, int wanted) {
  for (int i = 0; state(fd) != wanted; i++) {
    if (i > PATIENCE_MS) check_die("a socket stays in state %d instead of %d", state(fd), wanted);
    check_sleep_ms(1);
  }
}

/** A key for packets from and to this computer (TCP_MD5SIG); "": none any more. */
static int sign(int fd, int family, const char *key) {
  struct tcp_md5sig value = {.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX, .tcpm_keylen = (uint16_t)strlen(key)};
  memcpy(value.tcpm_key, key, strlen(key));
  value.tcpm_addr.ss_family = family == AF_INET ? AF_INET : AF_INET6;
  if (family == AF_INET) inet_pton(AF_INET, "127.0.0.1", &((struct sockaddr_in *)&value.tcpm_addr)->sin_addr);
  else inet_pton(AF_INET6, family < 0 ? "::ffff:127.0.0.1" : "::1", &((struct sockaddr_in6 *)&value.tcpm_addr)->sin6_addr);
  value.tcpm_prefixlen = family == AF_INET6 ? 128 : 32;
  return setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &value, sizeof(value));
}
static const char *key;

static struct connection make(const char *name, int family) {
  struct sockaddr_storage address = {0};
  socklen_t length = sizeof(address);
  if (family == AF_INET) {
    struct sockaddr_in *four = (void *)&address;
    *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  } else {
    struct sockaddr_in6 *six = (void *)&address;
    *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (family < 0) inet_pton(AF_INET6, "::ffff:127.0.0.1", &six->sin6_addr);
  }
  int listener = (int)MUST(socket(address.ss_family, SOCK_STREAM, 0));
  MUST(bind(listener, (struct sockaddr *)&address, length));
  if (key) MUST(sign(listener, family, key));
  MUST(listen(listener, 1));
  MUST(getsockname(listener, (struct sockaddr *)&address, &length));
  int client = (int)MUST(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (key) MUST(sign(client, family, key));
  MUST(connect(client, (struct sockaddr *)&address, length));
  int server = (int)MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK));
  close(listener);
  struct connection made = {name, family, {{client, 0, 0, next_seed}, {server, 0, 0, next_seed + 1}}};
  next_seed += 2;
  return made;
}

/** Sends until `length` bytes are taken, or the queues are full. */
static void send_some(struct end *from, size_t length) {
  const unsigned char *bytes = pattern(from->seed);
  while (length > 0) {
    ssize_t n = send(from->fd, bytes + from->sent, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    MUST(n);
    from->sent += (size_t)n, length -= (size_t)n;
  }
}
/** Receives all that the other end has sent so far, and compares it. */
static void receive_all(const char *name, struct end *to, const struct end *from) {
  static unsigned char buffer[1 << 16];
  while (to->received < from->sent) {
    struct pollfd ready = {.fd = to->fd, .events = POLLIN};
    if (poll(&ready, 1, PATIENCE_MS) != 1) {
      check_line("%s: %zu of %zu bytes arrive\n", name, to->received, from->sent);
      return;
    }
    ssize_t n = recv(to->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n <= 0) {
      check_line("%s: after %zu of %zu bytes: %s\n", name, to->received, from->sent, n ? strerror(errno) : "the end");
      return;
    }
    size_t differing = to->received;
    check_bytes(name, pattern(from->seed) + differing, buffer, (size_t)n);
    to->received += (size_t)n;
  }
}
static void expect_end(const char *name, struct end *to) {
  struct pollfd ready = {.fd = to->fd, .events = POLLIN};
  CHECK_EQ("%s: poll for the end", 1, poll(&ready, 1, PATIENCE_MS), name);
  char byte;
  CHECK_EQ("%s: the end", 0, (long)recv(to->fd, &byte, 1, MSG_DONTWAIT), name);
}
static void expect_shut(const char *name, struct end *from) {
  CHECK_EQ("%s: sending", -1, (long)send(from->fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT), name);
  CHECK_EQ("%s: why not", EPIPE, errno, name);
}
static void exchange(struct connection *c) {
  for (int i = 0; i < 2; i++) receive_all(c->name, &c->ends[!i], &c->ends[i]);
  for (int round = 0; round < 3; round++)
    for (int i = 0; i < 2; i++) {
      send_some(&c->ends[i], 1000);
      receive_all(c->name, &c->ends[!i], &c->ends[i]);
    }
}
/** Its ends one after the other, as getsockname and getpeername tell them. */
static void names(struct connection *c, struct sockaddr_in6 *four) {
  memset(four, 0, 4 * sizeof(*four));
  for (int i = 0; i < 2; i++) {
    socklen_t length = sizeof(*four);
    MUST(getsockname(c->ends[i].fd, (struct sockaddr *)&four[2 * i], &length));
    length = sizeof(*four);
    MUST(getpeername(c->ends[i].fd, (struct sockaddr *)&four[2 * i + 1], &length));
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* Only what CRIU's images have a field for, and CRIU restores. */
  bool less = argc > 2 && strcmp(argv[2], "plain") == 0;
  check_fill(bytes_of_all = malloc(LARGEST + 64 * 4099), LARGEST + 64 * 4099, 1);
  struct connection four = make("IPv4", AF_INET), six = make("IPv6", AF_INET6), mapped = make("mapped", -1);
  struct connection full = make("full", AF_INET), both = make("full both ways", AF_INET6);
  struct connection half = make("half-shut", AF_INET), answer = make("half-shut by the server", AF_INET6);
  struct connection late = make("shut behind a full queue", AF_INET), deaf = make("deaf", AF_INET);
  struct connection corked = make("corked", AF_INET), child = make("with a child", AF_INET);
  struct connection small = make("small buffers", AF_INET);

  struct connection *plain[] = {&four, &six, &mapped};
  for (int i = 0; i < 3; i++) {
    send_some(&plain[i]->ends[0], 10000 + (size_t)i);
    send_some(&plain[i]->ends[1], 5 + (size_t)i);
    receive_all("before", &plain[i]->ends[1], &plain[i]->ends[0]);
    send_some(&plain[i]->ends[0], 3000);
  }
  send_some(&full.ends[0], LARGEST - 4000);
  send_some(&both.ends[0], LARGEST - 4000), send_some(&both.ends[1], LARGEST - 4000);
  send_some(&half.ends[0], 777), MUST(shutdown(half.ends[0].fd, SHUT_WR));
  wait_state(half.ends[0].fd, TCP_FIN_WAIT2), wait_state(half.ends[1].fd, TCP_CLOSE_WAIT);
  send_some(&half.ends[1], 888);
  send_some(&answer.ends[0], 10), MUST(shutdown(answer.ends[1].fd, SHUT_WR));
  wait_state(answer.ends[1].fd, TCP_FIN_WAIT2);
  send_some(&late.ends[0], LARGEST - 4000), MUST(shutdown(late.ends[0].fd, SHUT_WR));
  CHECK_EQ("a FIN that waits", TCP_FIN_WAIT1, state(late.ends[0].fd));
  MUST(shutdown(deaf.ends[0].fd, SHUT_RD));
  set(corked.ends[0].fd, IPPROTO_TCP, TCP_CORK, 1);
  send_some(&corked.ends[0], 100);
  set(small.ends[0].fd, SOL_SOCKET, SO_SNDBUF, 5000), set(small.ends[1].fd, SOL_SOCKET, SO_RCVBUF, 3000);
  send_some(&small.ends[0], 100000);

  /* Its FIN waits behind bytes that the other has no room for; that has shut its half before, or afterwards. */
  struct connection last = {0}, closing = {0};
  if (!less) {
    last = make("in LAST_ACK", AF_INET), closing = make("in CLOSING", AF_INET6);
    set(last.ends[1].fd, SOL_SOCKET, SO_RCVBUF, 50000), set(closing.ends[1].fd, SOL_SOCKET, SO_RCVBUF, 50000);
    MUST(shutdown(last.ends[1].fd, SHUT_WR)), wait_state(last.ends[0].fd, TCP_CLOSE_WAIT);
    send_some(&last.ends[0], 400000), MUST(shutdown(last.ends[0].fd, SHUT_WR)), wait_state(last.ends[0].fd, TCP_LAST_ACK);
    send_some(&closing.ends[0], 400000), MUST(shutdown(closing.ends[0].fd, SHUT_WR));
    MUST(shutdown(closing.ends[1].fd, SHUT_WR)), wait_state(closing.ends[0].fd, TCP_CLOSING);
  }

  /* with keys that they sign their packets with */
  struct connection secrets[3] = {0};
  int count_secrets = !less && sign(four.ends[0].fd, AF_INET, "probe") == 0 && sign(four.ends[0].fd, AF_INET, "") == 0 ? 3 : 0;
  if (!less && !count_secrets) check_note("no keys of TCP-MD5 here");
  key = "a key";
  for (int i = 0; i < count_secrets; i++) {
    secrets[i] = make(i == 0 ? "signed" : i == 1 ? "signed IPv6" : "signed mapped", i == 0 ? AF_INET : i == 1 ? AF_INET6 : -1);
    send_some(&secrets[i].ends[0], 10000), send_some(&secrets[i].ends[1], 100);
  }

  int tuned = four.ends[0].fd;
  set(tuned, IPPROTO_TCP, TCP_NODELAY, 1);
  set(tuned, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(tuned, SOL_SOCKET, SO_REUSEADDR, 1);
  set(tuned, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set(tuned, IPPROTO_TCP, TCP_KEEPINTVL, 7);
  set(tuned, IPPROTO_TCP, TCP_KEEPCNT, 3);
  if (!less) {
    set(tuned, IPPROTO_TCP, TCP_USER_TIMEOUT, 123456);
    set(tuned, IPPROTO_TCP, TCP_LINGER2, 9);
    set(tuned, IPPROTO_IP, IP_TTL, 33);
    MUST(setsockopt(tuned, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  }
  struct { int level, name, value; } options[] = {
      {IPPROTO_TCP, TCP_NODELAY, 0},   {SOL_SOCKET, SO_KEEPALIVE, 0},      {SOL_SOCKET, SO_REUSEADDR, 0},
      {IPPROTO_TCP, TCP_KEEPIDLE, 0},  {IPPROTO_TCP, TCP_KEEPINTVL, 0},    {IPPROTO_TCP, TCP_KEEPCNT, 0},
      {IPPROTO_TCP, TCP_LINGER2, 0},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 0}, {IPPROTO_IP, IP_TTL, 0},
      {SOL_SOCKET, SO_SNDBUF, 0},      {SOL_SOCKET, SO_RCVBUF, 0},         {SOL_SOCKET, SO_REUSEPORT, 0},
  };
  int count = sizeof(options) / sizeof(*options) - less;
  for (int i = 0; i < count; i++) options[i].value = get(tuned, options[i].level, options[i].name);
  struct tcp_info before, after;
  socklen_t length = sizeof(before);
  MUST(getsockopt(tuned, IPPROTO_TCP, TCP_INFO, &before, &length));
  struct sockaddr_in6 named[3][4], now[4];
  for (int i = 0; i < 3; i++) names(plain[i], named[i]);

  int result[2];
  MUST(pipe(result));
  pid_t pid = (pid_t)MUST(fork());
  if (pid == 0) {
    /* Sends back what it receives, until the end. */
    for (int fd = 3; fd < 100; fd++)
      if (fd != child.ends[1].fd) close(fd);
    MUST(fcntl(child.ends[1].fd, F_SETFL, 0));
    char buffer[4096];
    ssize_t n;
    while ((n = recv(child.ends[1].fd, buffer, sizeof(buffer), 0)) > 0)
      if (send(child.ends[1].fd, buffer, (size_t)n, MSG_NOSIGNAL) != n) _exit(1);
    _exit(n == 0 ? 0 : 2);
  }
  close(child.ends[1].fd);
  /* it has closed the others */
  tree_await_state(pid, 'S');
  check_ready();

  for (int i = 0; i < 3; i++) {
    names(plain[i], now);
    CHECK_BYTES("%s: names", named[i], now, sizeof(now), plain[i]->name);
  }
  for (int i = 0; i < count; i++)
    CHECK_EQ("option %d:%d", options[i].value, get(tuned, options[i].level, options[i].name), options[i].level,
             options[i].name);
  MUST(getsockopt(tuned, IPPROTO_TCP, TCP_INFO, &after, &length));
  CHECK_EQ("options of the connection", before.tcpi_options & 7, after.tcpi_options & 7);
  CHECK_EQ("scale of sending", before.tcpi_snd_wscale, after.tcpi_snd_wscale);
  CHECK_EQ("scale of receiving", before.tcpi_rcv_wscale, after.tcpi_rcv_wscale);
  char congestion[16] = {0};
  length = sizeof(congestion);
  MUST(getsockopt(tuned, IPPROTO_TCP, TCP_CONGESTION, congestion, &length));
  if (!less) CHECK_STRING("congestion control", "reno", congestion);
  CHECK_EQ("O_NONBLOCK of a client", 0, fcntl(tuned, F_GETFL) & O_NONBLOCK);
  CHECK_EQ("O_NONBLOCK of a server", O_NONBLOCK, fcntl(four.ends[1].fd, F_GETFL) & O_NONBLOCK);

  for (int i = 0; i < 3; i++) exchange(plain[i]);
  exchange(&full), exchange(&both), exchange(&small);
  for (int i = 0; i < count_secrets; i++) {
    exchange(&secrets[i]);
    for (int end = 0; end < 2; end++) {
      int fd = secrets[i].ends[end].fd;
      CHECK_EQ("%s: the key of end %d", 0, sign(fd, secrets[i].family, ""), secrets[i].name, end);
      /* what is half gone would last */
      MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)));
    }
  }
  CHECK_EQ("half-shut: the server", TCP_CLOSE_WAIT, state(half.ends[1].fd));
  wait_state(half.ends[0].fd, TCP_FIN_WAIT2);
  receive_all("half-shut", &half.ends[1], &half.ends[0]);
  expect_end("half-shut", &half.ends[1]), expect_shut("half-shut", &half.ends[0]);
  send_some(&half.ends[1], 500), receive_all("half-shut: back", &half.ends[0], &half.ends[1]);
  close(half.ends[1].fd), expect_end("half-shut: back", &half.ends[0]);
  expect_shut("half-shut by the server", &answer.ends[1]), expect_end("half-shut by the server", &answer.ends[0]);
  send_some(&answer.ends[0], 1000), receive_all("half-shut by the server", &answer.ends[1], &answer.ends[0]);
  receive_all("late", &late.ends[1], &late.ends[0]);
  expect_end("late", &late.ends[1]), expect_shut("late", &late.ends[0]);
  send_some(&late.ends[1], 500), receive_all("late: back", &late.ends[0], &late.ends[1]);
  if (!less) {
    CHECK_EQ("LAST_ACK", TCP_LAST_ACK, state(last.ends[0].fd));
    CHECK_EQ("CLOSING", TCP_CLOSING, state(closing.ends[0].fd));
    struct connection *ending[] = {&last, &closing};
    for (int i = 0; i < 2; i++) {
      receive_all(ending[i]->name, &ending[i]->ends[1], &ending[i]->ends[0]);
      for (int end = 0; end < 2; end++)
        expect_end(ending[i]->name, &ending[i]->ends[end]), expect_shut(ending[i]->name, &ending[i]->ends[end]);
      wait_state(ending[i]->ends[0].fd, TCP_CLOSE), wait_state(ending[i]->ends[1].fd, TCP_CLOSE);
    }
  }
  expect_end("deaf", &deaf.ends[0]);
  send_some(&deaf.ends[0], 100), receive_all("deaf", &deaf.ends[1], &deaf.ends[0]);
  CHECK_EQ("corked", 1, get(corked.ends[0].fd, IPPROTO_TCP, TCP_CORK));
  set(corked.ends[0].fd, IPPROTO_TCP, TCP_CORK, 0);
  exchange(&corked);

  char text[6] = {0};
  CHECK_EQ("a child: sending", 5, (long)send(child.ends[0].fd, "hello", 5, MSG_NOSIGNAL));
  CHECK_EQ("a child: receiving", 5, (long)recv(child.ends[0].fd, text, 5, MSG_WAITALL));
  CHECK_STRING("a child: the text", "hello", text);
  MUST(shutdown(child.ends[0].fd, SHUT_WR));
  int status = -1;
  MUST(waitpid(pid, &status, 0));
  CHECK_EQ("a child: its status", 0, status);
  return check_finish();
}
