/*
 * What sockets of IP hold besides TCP connections: datagrams of UDP that nobody has read, with their senders, also where
 * several sockets share a port; multicast groups; raw sockets, UDP-Lite and those of ping; TCP connections that have
 * ended, with bytes left behind; one that is still being made. Needs a network of its own.
 */
#include "check.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static union address {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
} address;
static socklen_t length;

static void set_address(const char *text, uint16_t port) {
  memset(&address, 0, sizeof(address));
  if (strchr(text, ':')) {
    address.six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, text, &address.six.sin6_addr), length = sizeof(address.six);
  } else {
    address.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, text, &address.four.sin_addr), length = sizeof(address.four);
  }
}
static uint16_t get_port(int fd, int (*get)(int, struct sockaddr *, socklen_t *)) {
  union address found = {0};
  socklen_t size = sizeof(found);
  return get(fd, &found.any, &size) == 0 ? ntohs(found.four.sin_port) : 0;
}
static uint16_t port(int fd) { return get_port(fd, getsockname); }
static void set(int fd, int level, int name, int value) { MUST(setsockopt(fd, level, name, &value, sizeof(value))); }
static int get(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  MUST(getsockopt(fd, level, name, &value, &size));
  return value;
}
static int bound(const char *to, int type, int protocol, uint16_t number, int shares) {
  int fd = (int)MUST(socket(strchr(to, ':') ? AF_INET6 : AF_INET, type, protocol));
  if (shares) set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (type == SOCK_STREAM) set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  set_address(to, number);
  MUST(bind(fd, &address.any, length));
  return fd;
}
static void send_to(int from, const char *to, uint16_t number, const char *text) {
  set_address(to, number);
  MUST(sendto(from, text, strlen(text), 0, &address.any, length));
}
static void await(int fd, int bytes) {
  int count = 0;
  for (int i = 0; i < 2000 && count < bytes; i++) MUST(ioctl(fd, FIONREAD, &count)), check_sleep_ms(1);
  if (count < bytes) check_die("%d bytes do not come", bytes);
}
/** One datagram of this sender; 0: of any. */
static void expect(const char *name, int fd, const char *text, uint16_t from) {
  char got[65536] = {0};
  union address sender = {0};
  socklen_t size = sizeof(sender);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  poll(&ready, 1, 2000);
  CHECK_EQ("%s: length", (long)strlen(text), (long)recvfrom(fd, got, sizeof(got), MSG_DONTWAIT, &sender.any, &size), name);
  CHECK_STRING(name, text, got);
  if (from) CHECK_EQ("%s: sender", from, ntohs(sender.four.sin_port), name);
}
/** Datagrams of 100 bytes, alone or several as one that tells it; the last may be shorter. */
static void expect_packed(int fd, ssize_t bytes) {
  static char got[65536], control[64];
  for (ssize_t n; bytes > 0; bytes -= n) {
    struct iovec room = {got, sizeof(got)};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    n = recvmsg(fd, &message, MSG_DONTWAIT);
    struct cmsghdr *told = CMSG_FIRSTHDR(&message);
    if (n > 100) CHECK("packed: told", told && told->cmsg_type == UDP_GRO && *(int *)CMSG_DATA(told) == 100);
    CHECK("packed: %zd bytes of %zd", n == bytes || (n > 0 && n < bytes && n % 100 == 0), n, bytes);
    if (n <= 0) return;
  }
}
static void expect_nothing(const char *name, int fd) {
  char byte;
  CHECK_EQ("%s: nothing more", -1, recv(fd, &byte, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: error", EAGAIN, errno, name);
}
static bool joined(int fd, int level, const char *group, unsigned mode, int sources) {
  char room[GROUP_FILTER_SIZE(8)] = {0};
  struct group_filter *filter = (struct group_filter *)room;
  socklen_t size = sizeof(room);
  filter->gf_interface = 1, filter->gf_numsrc = 8;
  set_address(group, 0);
  memcpy(&filter->gf_group, &address, length);
  if (getsockopt(fd, level, MCAST_MSFILTER, filter, &size) != 0) return false;
  return filter->gf_fmode == mode && (int)filter->gf_numsrc == sources;
}
static void join(int fd, int level, const char *group) {
  struct group_req request = {.gr_interface = 1};
  set_address(group, 0);
  memcpy(&request.gr_group, &address, length);
  MUST(setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof(request)));
}
static void from_source(int fd, int name, const char *source) {
  struct group_source_req request = {.gsr_interface = 1};
  set_address("239.1.2.4", 0);
  memcpy(&request.gsr_group, &address, length);
  set_address(source, 0);
  memcpy(&request.gsr_source, &address, length);
  MUST(setsockopt(fd, IPPROTO_IP, name, &request, sizeof(request)));
}
static int connect_to(int listener) {
  int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
  set_address("127.0.0.1", port(listener));
  MUST(connect(fd, &address.any, length));
  return fd;
}
static void await_end(int fd) {
  struct tcp_info info = {0};
  for (int i = 0; i < 2000 && info.tcpi_state != TCP_CLOSE; i++) {
    socklen_t size = sizeof(info);
    MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
    check_sleep_ms(1);
  }
  if (info.tcpi_state != TCP_CLOSE) check_die("a connection does not end");
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* datagrams: an empty one first, large ones, of senders that are gone; one that is connected */
  static char large[60001];
  memset(large, 'x', sizeof(large) - 1);
  int udp = bound("0.0.0.0", SOCK_DGRAM, 0, 0, 0), sender = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0);
  send_to(sender, "127.0.0.1", port(udp), ""), send_to(sender, "127.0.0.1", port(udp), "first");
  send_to(sender, "127.0.0.1", port(udp), large);
  int passing = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0);
  uint16_t gone = port(passing), from = port(sender);
  send_to(passing, "127.0.0.1", port(udp), "of one that is gone"), close(passing);
  int connected = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0);
  set_address("127.0.0.1", from), MUST(connect(connected, &address.any, length));
  send_to(sender, "127.0.0.1", port(connected), "to the connected one");
  int six = bound("::", SOCK_DGRAM, 0, 0, 0), sender6 = bound("::1", SOCK_DGRAM, 0, 0, 0);
  send_to(sender6, "::1", port(six), "of IPv6"), send_to(sender, "127.0.0.1", port(six), "of IPv4");
  /* three of one port: each has its own */
  int group[3], senders[12], own[3] = {0};
  for (int i = 0; i < 3; i++) group[i] = bound("127.0.0.1", SOCK_DGRAM, 0, i ? port(group[0]) : 0, 1);
  for (int i = 0; i < 12; i++) {
    senders[i] = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0);
    send_to(senders[i], "127.0.0.1", port(group[0]), "shared");
  }
  check_sleep_ms(20);
  /* ten that the kernel gives as one (UDP_GRO) */
  int packed = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0), packer = bound("127.0.0.1", SOCK_DGRAM, 0, 0, 0);
  set(packer, IPPROTO_UDP, UDP_SEGMENT, 100), set(packed, IPPROTO_UDP, UDP_GRO, 1);
  set_address("127.0.0.1", port(packed)), MUST(sendto(packer, large, 950, 0, &address.any, length));
  await(packed, 100);
  /* multicast */
  int casts = bound("0.0.0.0", SOCK_DGRAM, 0, 0, 0), casts6 = bound("::", SOCK_DGRAM, 0, 0, 0);
  join(casts, IPPROTO_IP, "239.1.2.3"), join(casts6, IPPROTO_IPV6, "ff05::123"), join(casts6, IPPROTO_IP, "239.1.2.5");
  from_source(casts, MCAST_JOIN_SOURCE_GROUP, "10.1.1.1"), from_source(casts, MCAST_JOIN_SOURCE_GROUP, "10.1.1.2");
  /* raw sockets */
  int raw = (int)MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), raw6 = (int)MUST(socket(AF_INET6, SOCK_RAW, 99));
  struct icmp_filter filter = {~(1u << ICMP_ECHOREPLY)}, filter_now = {0};
  MUST(setsockopt(raw, SOL_RAW, ICMP_FILTER, &filter, sizeof(filter)));
  set(raw, IPPROTO_IP, IP_TTL, 7), set(raw6, IPPROTO_IPV6, IPV6_CHECKSUM, 4);
  set_address("127.0.0.1", 0), MUST(connect(raw, &address.any, length));
  int header = (int)MUST(socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
  int ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
  if (ping < 0) check_note("no socket of ping: %s", strerror(errno));
  else set_address("127.0.0.1", 4321), MUST(bind(ping, &address.any, length));
  int lite = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), lite_port = 0;
  if (lite < 0) check_note("no UDP-Lite: %s", strerror(errno));
  else set_address("127.0.0.1", 0), MUST(bind(lite, &address.any, length)), set(lite, 136, 10, 12), lite_port = port(lite);
  /* connections that have ended: by both ends, by a reset, with bytes left */
  int listener = bound("127.0.0.1", SOCK_STREAM, 0, 0, 0);
  MUST(listen(listener, 1));
  int ended = connect_to(listener), other = (int)MUST(accept(listener, NULL, NULL));
  uint16_t ended_port = port(ended);
  MUST(send(other, "last words", 10, 0)), await(ended, 10);
  MUST(shutdown(other, SHUT_WR)), check_sleep_ms(5), MUST(shutdown(ended, SHUT_WR)), await_end(ended);
  int reset = connect_to(listener), resets = (int)MUST(accept(listener, NULL, NULL));
  struct linger at_once = {1, 0};
  MUST(setsockopt(resets, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))), close(resets), await_end(reset);
  CHECK_EQ("the reset", ECONNRESET, get(reset, SOL_SOCKET, SO_ERROR));
  /* one that is being made: its listener hears nobody */
  int deaf = bound("127.0.0.1", SOCK_STREAM, 0, 0, 0), making = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
  struct sock_fprog program = {1, &nothing};
  MUST(setsockopt(deaf, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program))), MUST(listen(deaf, 1));
  set_address("127.0.0.1", port(deaf));
  CHECK_EQ("being made", -1, connect(making, &address.any, length));
  CHECK_EQ("in progress", EINPROGRESS, errno);
  uint16_t making_port = port(making);

  check_ready();

  expect_packed(packed, 950), expect_nothing("packed", packed);

  expect("empty", udp, "", from), expect("first", udp, "first", from), expect("large", udp, large, from);
  expect("gone", udp, "of one that is gone", gone), expect_nothing("udp", udp);
  expect("connected", connected, "to the connected one", from), expect_nothing("connected", connected);
  expect("IPv6", six, "of IPv6", port(sender6)), expect("mapped", six, "of IPv4", from), expect_nothing("IPv6", six);
  for (int i = 0; i < 3; i++) {
    char got[16];
    while (recv(group[i], got, sizeof(got), MSG_DONTWAIT) == 6) own[i]++;
    CHECK_EQ("no peer of a shared one", 0, get_port(group[i], getpeername));
  }
  CHECK_EQ("shared ones", 12, own[0] + own[1] + own[2]);
  send_to(sender, "127.0.0.1", port(udp), "new"), expect("a new one", udp, "new", from);
  CHECK("joined", joined(casts, IPPROTO_IP, "239.1.2.3", MCAST_EXCLUDE, 0));
  CHECK("joined with sources", joined(casts, IPPROTO_IP, "239.1.2.4", MCAST_INCLUDE, 2));
  CHECK("not joined", !joined(casts, IPPROTO_IP, "239.1.2.5", MCAST_EXCLUDE, 0));
  CHECK("joined in IPv6", joined(casts6, IPPROTO_IPV6, "ff05::123", MCAST_EXCLUDE, 0));
  CHECK("joined in IPv4", joined(casts6, IPPROTO_IP, "239.1.2.5", MCAST_EXCLUDE, 0));
  socklen_t size = sizeof(filter_now);
  MUST(getsockopt(raw, SOL_RAW, ICMP_FILTER, &filter_now, &size));
  CHECK_EQ("filter of ICMP", filter.data, filter_now.data);
  CHECK_EQ("IP_TTL", 7, get(raw, IPPROTO_IP, IP_TTL));
  CHECK_EQ("IPV6_CHECKSUM", 4, get(raw6, IPPROTO_IPV6, IPV6_CHECKSUM));
  CHECK_EQ("IP_HDRINCL", 1, get(header, IPPROTO_IP, IP_HDRINCL));
  CHECK_EQ("IP_HDRINCL of another", 0, get(raw, IPPROTO_IP, IP_HDRINCL));
  struct icmphdr echo = {.type = ICMP_ECHO, .checksum = htons(0xf7ff)};
  CHECK_EQ("a raw echo", (long)sizeof(echo), (long)send(raw, &echo, sizeof(echo), 0));
  struct pollfd ready = {.fd = raw, .events = POLLIN};
  CHECK_EQ("its reply", 1, poll(&ready, 1, 2000));
  if (ping >= 0) {
    CHECK_EQ("id of ping", 4321, port(ping));
    set_address("127.0.0.1", 0);
    CHECK_EQ("a ping", (long)sizeof(echo), (long)sendto(ping, &echo, sizeof(echo), 0, &address.any, length));
    ready.fd = ping;
    CHECK_EQ("its pong", 1, poll(&ready, 1, 2000));
  }
  if (lite >= 0) CHECK_EQ("UDP-Lite", 12, get(lite, 136, 10)), CHECK_EQ("its port", lite_port, port(lite));
  char got[32] = {0};
  CHECK_EQ("port of what has ended", ended_port, port(ended));
  CHECK_EQ("bytes left", 10, (long)recv(ended, got, sizeof(got), MSG_DONTWAIT));
  CHECK_STRING("last words", "last words", got);
  int ends[] = {ended, reset};
  for (int i = 0; i < 2; i++) {
    CHECK_EQ("the end of %d", 0, (long)recv(ends[i], got, sizeof(got), MSG_DONTWAIT), i);
    CHECK_EQ("no peer of %d", 0, get_port(ends[i], getpeername), i);
    CHECK_EQ("nothing is sent by %d", -1, send(ends[i], "x", 1, MSG_NOSIGNAL), i);
    CHECK_EQ("error of %d", EPIPE, errno, i);
    CHECK_EQ("SO_ERROR of %d", 0, get(ends[i], SOL_SOCKET, SO_ERROR), i);
  }
  set(deaf, SOL_SOCKET, SO_DETACH_FILTER, 0);
  ready = (struct pollfd){.fd = making, .events = POLLOUT};
  CHECK_EQ("it is made", 1, poll(&ready, 1, 10000));
  CHECK_EQ("without an error", 0, get(making, SOL_SOCKET, SO_ERROR));
  CHECK_EQ("from the same port", making_port, port(making));
  MUST(fcntl(deaf, F_SETFL, O_NONBLOCK));
  /* the last packet of the handshake may still be under way */
  ready = (struct pollfd){.fd = deaf, .events = POLLIN};
  poll(&ready, 1, 10000);
  int made = accept(deaf, NULL, NULL);
  CHECK_EQ("it sends", 5, (long)send(making, "hello", 5, 0));
  CHECK_EQ("it is heard", 5, (long)recv(made, got, sizeof(got), 0));
  return check_finish();
}
