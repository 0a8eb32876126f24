/*
 * Options of sockets: of each kind of socket, every one that can be changed and read is changed in a socket of its own.
 * Which these are is tried out, so that those of later kernels are, too. And by which device multicast goes, which none
 * tells.
 */
#include "check.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { VALUE = 64, MOST = 2000, OPTIONS = 110 };
static const int levels[] = {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, 255, 263, 270};
enum { LEVELS = sizeof(levels) / sizeof(*levels) };
enum state { FRESH, LISTENING, CONNECTED };
static const struct kind {
  const char *name;
  int family, type, protocol;
  enum state state;
} kinds[] = {
    {"TCP", AF_INET, SOCK_STREAM, 0, FRESH},          {"listening TCP", AF_INET, SOCK_STREAM, 0, LISTENING},
    {"connected TCP", AF_INET, SOCK_STREAM, 0, CONNECTED}, {"TCP of IPv6", AF_INET6, SOCK_STREAM, 0, LISTENING},
    {"connected TCP of IPv6", AF_INET6, SOCK_STREAM, 0, CONNECTED},
    {"UDP", AF_INET, SOCK_DGRAM, 0, FRESH},           {"UDP of IPv6", AF_INET6, SOCK_DGRAM, 0, FRESH},
    {"UDP-Lite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, FRESH}, {"ICMP", AF_INET, SOCK_RAW, IPPROTO_ICMP, FRESH},
    {"ICMPv6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, FRESH}, {"raw", AF_INET, SOCK_RAW, IPPROTO_RAW, FRESH},
    {"raw of IPv6", AF_INET6, SOCK_RAW, 89, FRESH},   {"Unix stream", AF_UNIX, SOCK_STREAM, 0, CONNECTED},
    {"Unix datagrams", AF_UNIX, SOCK_DGRAM, 0, CONNECTED}, {"netlink", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, FRESH},
};
enum { KINDS = sizeof(kinds) / sizeof(*kinds) };
static struct changed {
  const struct kind *kind;
  int fd, peer, level, name;
  socklen_t length;
  char value[VALUE];
} changed[MOST];
static int count;

/** Not of the socket's own, not lasting, or for ckpt itself. */
static bool is_left_out(const struct kind *kind, int level, int name) {
  static const int out[][2] = {{SOL_SOCKET, SO_INCOMING_CPU}, {IPPROTO_TCP, TCP_QUICKACK}, {IPPROTO_TCP, TCP_REPAIR},
                               {IPPROTO_TCP, TCP_REPAIR_QUEUE}, {IPPROTO_TCP, TCP_QUEUE_SEQ}, {IPPROTO_IPV6, IPV6_ADDRFORM}};
  for (size_t i = 0; i < sizeof(out) / sizeof(*out); i++)
    if (level == out[i][0] && name == out[i][1]) return true;
  /* TCP has no use for multicast */
  bool tcp = kind->state == CONNECTED && kind->type == SOCK_STREAM;
  return tcp && ((level == IPPROTO_IP && name >= IP_MULTICAST_IF && name <= IP_MULTICAST_LOOP) ||
                 (level == IPPROTO_IPV6 && name >= IPV6_MULTICAST_IF && name <= IPV6_MULTICAST_LOOP));
}

/** A socket, and its peer; -1: there is none. */
static void make(const struct kind *kind, int fds[2]) {
  fds[0] = fds[1] = -1;
  if (kind->family == AF_UNIX) MUST(socketpair(AF_UNIX, kind->type, 0, fds));
  else fds[0] = (int)MUST(socket(kind->family, kind->type, kind->protocol));
  if (kind->family == AF_UNIX || kind->state == FRESH) return;
  struct sockaddr_in6 address = {.sin6_family = (sa_family_t)kind->family};
  socklen_t length = sizeof(address);
  if (kind->family == AF_INET6) address.sin6_addr = in6addr_loopback;
  else ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int listener = fds[0];
  MUST(bind(listener, (struct sockaddr *)&address, length)), MUST(listen(listener, 1));
  if (kind->state == LISTENING) return;
  MUST(getsockname(listener, (struct sockaddr *)&address, &length));
  fds[0] = (int)MUST(socket(kind->family, kind->type, 0));
  MUST(connect(fds[0], (struct sockaddr *)&address, length));
  fds[1] = (int)MUST(accept(listener, NULL, NULL)), MUST(close(listener));
}
static bool get(int fd, int level, int name, char value[VALUE], socklen_t *length) {
  memset(value, 0, VALUE), *length = VALUE;
  return getsockopt(fd, level, name, value, length) == 0;
}

/** Gives an option a value that it had not before, if there is one. */
static bool change(int fd, int level, int name, struct changed *to) {
  static const int values[] = {1, 5, 300, 0, 2, 70000, 3000000};
  char before[VALUE];
  socklen_t length;
  if (!get(fd, level, name, before, &length)) return false;
  for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
    int value[4] = {values[i]};
    for (socklen_t size = sizeof(int); size <= sizeof(value); size *= 2) {
      if (size == sizeof(value)) memcpy(value, (int[]){1, 0, values[i], 0}, sizeof(value));
      if (setsockopt(fd, level, name, value, size) != 0 || !get(fd, level, name, to->value, &to->length)) continue;
      if (to->length != length || memcmp(before, to->value, length) != 0) return true;
    }
  }
  return false;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct rlimit files;
  MUST(getrlimit(RLIMIT_NOFILE, &files));
  files.rlim_cur = files.rlim_max;
  MUST(setrlimit(RLIMIT_NOFILE, &files));
  for (const struct kind *kind = kinds; kind < kinds + KINDS; kind++) {
    int fds[2], tried[2];
    make(kind, tried);
    for (int i = 0; i < LEVELS * OPTIONS; i++) {
      int level = levels[i / OPTIONS], name = i % OPTIONS;
      char value[VALUE];
      socklen_t length;
      if (is_left_out(kind, level, name) || !get(tried[0], level, name, value, &length)) continue;
      make(kind, fds);
      struct changed *to = &changed[count];
      if (change(fds[0], level, name, to)) {
        to->kind = kind, to->fd = fds[0], to->peer = fds[1], to->level = level, to->name = name;
        if (++count == MOST) check_die("too many options");
      } else {
        close(fds[0]), close(fds[1]);
      }
    }
    close(tried[0]), close(tried[1]);
  }
  /* there are more than a thousand; a few of them are, or it is the trying that fails */
  if (count < 500) check_die("only %d options can be changed", count);
  struct ip_mreqn device = {.imr_ifindex = 1};
  int sender = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)), receiver = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)), hops = 5;
  MUST(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &device, sizeof(device)));
  MUST(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof(hops)));
  struct sockaddr_in group = {.sin_family = AF_INET, .sin_addr = {inet_addr("239.1.2.77")}};
  socklen_t length = sizeof(group);
  MUST(bind(receiver, (struct sockaddr *)&group, length)), MUST(getsockname(receiver, (struct sockaddr *)&group, &length));
  device.imr_multiaddr = group.sin_addr;
  MUST(setsockopt(receiver, IPPROTO_IP, IP_ADD_MEMBERSHIP, &device, sizeof(device)));

  check_ready();

  for (const struct changed *was = changed; was < changed + count; was++) {
    char now[VALUE];
    CHECK("%s: option %d:%d is there", get(was->fd, was->level, was->name, now, &length), was->kind->name, was->level, was->name);
    CHECK_EQ("%s: length of option %d:%d", was->length, length, was->kind->name, was->level, was->name);
    CHECK_BYTES("%s: option %d:%d", was->value, now, was->length, was->kind->name, was->level, was->name);
  }
  /* both ends of connections go at once, also of those that may hardly send any more */
  const struct linger reset = {1, 0};
  for (int i = 0; i < count; i++) {
    setsockopt(changed[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (changed[i].peer >= 0) setsockopt(changed[i].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  }
  CHECK_EQ("sending to a group", 1, (long)sendto(sender, "x", 1, 0, (struct sockaddr *)&group, sizeof(group)));
  struct pollfd ready = {.fd = receiver, .events = POLLIN};
  CHECK_EQ("poll", 1, poll(&ready, 1, 5000));
  char byte = 0;
  CHECK_EQ("what comes by the device", 1, (long)recv(receiver, &byte, 1, MSG_DONTWAIT));
  return check_finish();
}
