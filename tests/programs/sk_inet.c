/*
 * Sockets of IPv4 and IPv6 without a connection of TCP: listening, bound, fresh; UDP bound and connected; options; two
 * that share a port (SO_REUSEPORT); one that a child shares. All on the loopback device.
 */
#include "tree.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in v4(uint16_t port) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}
static struct sockaddr_in6 v6(uint16_t port) {
  return (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
}
static int make(int family, int type) { return (int)MUST(socket(family, type, 0)); }
static void set(int fd, int level, int name, int value) { MUST(setsockopt(fd, level, name, &value, sizeof(value))); }
static int get(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  MUST(getsockopt(fd, level, name, &value, &length));
  return value;
}
/** A key for the packets of some peers (TCP_MD5SIG); "": none any more. */
static int sign(int fd, const char *key) {
  struct tcp_md5sig value = {.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX, .tcpm_prefixlen = 48, .tcpm_keylen = (uint16_t)strlen(key)};
  memcpy(value.tcpm_key, key, strlen(key));
  value.tcpm_addr.ss_family = AF_INET6;
  inet_pton(AF_INET6, "fd00:1:2::", &((struct sockaddr_in6 *)&value.tcpm_addr)->sin6_addr);
  return setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &value, sizeof(value));
}
static uint16_t port(int fd) {
  struct sockaddr_in6 address = {0};
  socklen_t length = sizeof(address);
  MUST(getsockname(fd, (struct sockaddr *)&address, &length));
  return ntohs(address.sin6_port);
}
static void bind_to(int fd, int family, uint16_t port) {
  struct sockaddr_in four = v4(port);
  struct sockaddr_in6 six = v6(port);
  if (family == AF_INET) MUST(bind(fd, (struct sockaddr *)&four, sizeof(four)));
  else MUST(bind(fd, (struct sockaddr *)&six, sizeof(six)));
}
/** A connection to a listener has to come through. */
static void expect_connection(const char *name, int listener, int family) {
  int client = make(family, SOCK_STREAM);
  struct sockaddr_in four = v4(port(listener));
  struct sockaddr_in6 six = v6(port(listener));
  int result = family == AF_INET ? connect(client, (struct sockaddr *)&four, sizeof(four))
                                 : connect(client, (struct sockaddr *)&six, sizeof(six));
  CHECK_EQ("%s: connect", 0, result, name);
  struct pollfd ready = {.fd = listener, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 2000), name);
  if (result != 0 || !ready.revents) return;
  int server = (int)MUST(accept(listener, NULL, NULL));
  CHECK_EQ("%s: send", 5, (long)send(client, "hello", 5, 0), name);
  char got[8] = {0};
  CHECK_EQ("%s: receive", 5, (long)recv(server, got, sizeof(got), 0), name);
  close(client), close(server);
}
static void expect_datagram(const char *name, int from, int to) {
  struct sockaddr_in address = v4(port(to));
  CHECK_EQ("%s: send", 4, (long)sendto(from, "data", 4, 0, (struct sockaddr *)&address, sizeof(address)), name);
  struct pollfd ready = {.fd = to, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 2000), name);
  char got[8];
  CHECK_EQ("%s: receive", 4, (long)recv(to, got, sizeof(got), MSG_DONTWAIT), name);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int listener = make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
  set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
  set(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(listener, SOL_SOCKET, SO_RCVBUF, 50000);
  set(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  set(listener, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set(listener, IPPROTO_TCP, TCP_KEEPINTVL, 7);
  set(listener, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
  set(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
  set(listener, IPPROTO_TCP, TCP_FASTOPEN, 5);
  set(listener, IPPROTO_IP, IP_TTL, 33);
  set(listener, IPPROTO_IP, IP_TOS, 0x10);
  struct linger linger = {1, 9};
  MUST(setsockopt(listener, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
  bind_to(listener, AF_INET, 0);
  MUST(listen(listener, 17));
  uint16_t listens = port(listener);
  int six = make(AF_INET6, SOCK_STREAM);
  set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44);
  set(six, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  set(six, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  bind_to(six, AF_INET6, listens);
  MUST(listen(six, 5));
  bool has_key = sign(six, "a key") == 0;
  /* two of one port, the second one in a child, too */
  int group[2];
  for (int i = 0; i < 2; i++) {
    group[i] = make(AF_INET, SOCK_STREAM);
    set(group[i], SOL_SOCKET, SO_REUSEPORT, 1);
    bind_to(group[i], AF_INET, i == 0 ? 0 : port(group[0]));
    MUST(listen(group[i], 5));
  }
  uint16_t shares = port(group[0]);
  int only_bound = make(AF_INET, SOCK_STREAM), fresh = make(AF_INET6, SOCK_STREAM);
  bind_to(only_bound, AF_INET, 0);
  uint16_t bound = port(only_bound);
  int udp = make(AF_INET, SOCK_DGRAM), connected = make(AF_INET, SOCK_DGRAM), unbound = make(AF_INET, SOCK_DGRAM);
  set(udp, SOL_SOCKET, SO_BROADCAST, 1);
  set(udp, IPPROTO_IP, IP_PKTINFO, 1);
  set(udp, IPPROTO_IP, IP_RECVERR, 1);
  set(udp, IPPROTO_IP, IP_MULTICAST_TTL, 9);
  set(udp, SOL_SOCKET, SO_PRIORITY, 4);
  MUST(setsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
  bind_to(udp, AF_INET, 0);
  struct sock_filter code[] = {{BPF_RET | BPF_K, 0, 0, 0xffff}};
  struct sock_fprog filter = {1, code};
  MUST(setsockopt(udp, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
  struct sockaddr_in address = v4(port(udp));
  MUST(connect(connected, (struct sockaddr *)&address, sizeof(address)));
  uint16_t udp_port = port(udp), source = port(connected);
  int udp6 = make(AF_INET6, SOCK_DGRAM);
  bind_to(udp6, AF_INET6, 0);
  uint16_t udp6_port = port(udp6);
  MUST(fchown(udp6, 12, 34));
  /* of an address that the host has not, and one that says so in IPv6 */
  int foreign = make(AF_INET, SOCK_DGRAM), mapped = make(AF_INET6, SOCK_DGRAM);
  struct sockaddr_in far = {.sin_family = AF_INET, .sin_port = htons(4711)}, far_now = {0};
  inet_pton(AF_INET, "203.0.113.7", &far.sin_addr);
  set(foreign, IPPROTO_IP, IP_FREEBIND, 1);
  MUST(bind(foreign, (struct sockaddr *)&far, sizeof(far)));
  struct sockaddr_in6 four = {.sin6_family = AF_INET6}, four_now = {0};
  inet_pton(AF_INET6, "::ffff:127.0.0.1", &four.sin6_addr);
  MUST(bind(mapped, (struct sockaddr *)&four, sizeof(four)));
  socklen_t four_length = sizeof(four);
  MUST(getsockname(mapped, (struct sockaddr *)&four, &four_length));
  pid_t child = tree_fork("child");
  if (child == 0) {
    close(listener);
    tree_settled();
    CHECK_EQ("the port of the child", shares, port(group[1]));
    CHECK_EQ("the reusing one is open", 1, get(group[1], SOL_SOCKET, SO_REUSEPORT));
    tree_report(0);
  }
  tree_await("child");

  check_ready();

  CHECK_EQ("port of the listener", listens, port(listener));
  CHECK_EQ("SO_REUSEADDR", 1, get(listener, SOL_SOCKET, SO_REUSEADDR));
  CHECK_EQ("SO_REUSEADDR of another", 0, get(only_bound, SOL_SOCKET, SO_REUSEADDR));
  CHECK_EQ("SO_KEEPALIVE", 1, get(listener, SOL_SOCKET, SO_KEEPALIVE));
  CHECK_EQ("SO_RCVBUF", 100000, get(listener, SOL_SOCKET, SO_RCVBUF));
  CHECK_EQ("SO_ACCEPTCONN", 1, get(listener, SOL_SOCKET, SO_ACCEPTCONN));
  CHECK_EQ("TCP_NODELAY", 1, get(listener, IPPROTO_TCP, TCP_NODELAY));
  CHECK_EQ("TCP_KEEPIDLE", 77, get(listener, IPPROTO_TCP, TCP_KEEPIDLE));
  CHECK_EQ("TCP_KEEPINTVL", 7, get(listener, IPPROTO_TCP, TCP_KEEPINTVL));
  CHECK_EQ("TCP_KEEPCNT", 3, get(listener, IPPROTO_TCP, TCP_KEEPCNT));
  CHECK_EQ("TCP_DEFER_ACCEPT", 3, get(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT));
  CHECK_EQ("TCP_USER_TIMEOUT", 12345, get(listener, IPPROTO_TCP, TCP_USER_TIMEOUT));
  CHECK_EQ("TCP_FASTOPEN", 5, get(listener, IPPROTO_TCP, TCP_FASTOPEN));
  CHECK_EQ("IP_TTL", 33, get(listener, IPPROTO_IP, IP_TTL));
  CHECK_EQ("IP_TOS", 0x10, get(listener, IPPROTO_IP, IP_TOS));
  struct linger now = {0, 0};
  socklen_t length = sizeof(now);
  MUST(getsockopt(listener, SOL_SOCKET, SO_LINGER, &now, &length));
  CHECK("SO_LINGER", now.l_onoff == 1 && now.l_linger == 9);
  struct tcp_info info;
  length = sizeof(info);
  MUST(getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &length));
  CHECK_EQ("the backlog", 17, (int)info.tcpi_sacked);
  CHECK("nonblocking", fcntl(listener, F_GETFL) & O_NONBLOCK);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(listener, F_GETFD));
  CHECK_EQ("IPV6_V6ONLY", 1, get(six, IPPROTO_IPV6, IPV6_V6ONLY));
  CHECK_EQ("IPV6_UNICAST_HOPS", 44, get(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
  CHECK_EQ("IPV6_TCLASS", 0x20, get(six, IPPROTO_IPV6, IPV6_TCLASS));
  CHECK_EQ("IPV6_RECVPKTINFO", 1, get(six, IPPROTO_IPV6, IPV6_RECVPKTINFO));
  CHECK_EQ("IPV6_RECVPKTINFO of another", 0, get(fresh, IPPROTO_IPV6, IPV6_RECVPKTINFO));
  if (has_key) CHECK_EQ("the key of a listener", 0, sign(six, ""));
  set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
  expect_connection("IPv4", listener, AF_INET);
  expect_connection("IPv6", six, AF_INET6);
  CHECK_EQ("the shared port", shares, port(group[0]));
  CHECK_EQ("the shared port again", shares, port(group[1]));
  int third = make(AF_INET, SOCK_STREAM);
  set(third, SOL_SOCKET, SO_REUSEPORT, 1);
  bind_to(third, AF_INET, shares);
  close(group[1]);
  CHECK_EQ("what is only bound", bound, port(only_bound));
  MUST(listen(only_bound, 3));
  expect_connection("what was only bound", only_bound, AF_INET);
  bind_to(fresh, AF_INET6, 0);
  MUST(listen(fresh, 1));
  expect_connection("what was fresh", fresh, AF_INET6);
  CHECK_EQ("IP_FREEBIND", 1, get(foreign, IPPROTO_IP, IP_FREEBIND));
  length = sizeof(far_now);
  MUST(getsockname(foreign, (struct sockaddr *)&far_now, &length));
  CHECK_BYTES("the address that nobody has", &far, &far_now, sizeof(far));
  length = sizeof(four_now);
  MUST(getsockname(mapped, (struct sockaddr *)&four_now, &length));
  CHECK_BYTES("the mapped address", &four, &four_now, sizeof(four));
  CHECK_EQ("port of UDP", udp_port, port(udp));
  CHECK_EQ("SO_BROADCAST", 1, get(udp, SOL_SOCKET, SO_BROADCAST));
  CHECK_EQ("IP_PKTINFO", 1, get(udp, IPPROTO_IP, IP_PKTINFO));
  CHECK_EQ("IP_RECVERR", 1, get(udp, IPPROTO_IP, IP_RECVERR));
  CHECK_EQ("IP_MULTICAST_TTL", 9, get(udp, IPPROTO_IP, IP_MULTICAST_TTL));
  CHECK_EQ("SO_PRIORITY", 4, get(udp, SOL_SOCKET, SO_PRIORITY));
  char device[16] = "";
  length = sizeof(device);
  MUST(getsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, device, &length));
  CHECK_STRING("SO_BINDTODEVICE", "lo", device);
  struct sock_filter read[4];
  length = 4;
  MUST(getsockopt(udp, SOL_SOCKET, SO_GET_FILTER, read, &length));
  CHECK_EQ("length of the filter", 1, (int)length);
  CHECK_BYTES("the filter", code, read, sizeof(code));
  CHECK_EQ("port of the connected one", source, port(connected));
  CHECK_EQ("the connected one sends", 2, (long)send(connected, "hi", 2, 0));
  struct pollfd ready = {.fd = udp, .events = POLLIN};
  CHECK_EQ("it comes", 1, poll(&ready, 1, 2000));
  char got[8];
  CHECK_EQ("all of it", 2, (long)recv(udp, got, sizeof(got), MSG_DONTWAIT));
  CHECK_EQ("what is unbound", 0, port(unbound));
  expect_datagram("UDP", unbound, udp);
  CHECK_EQ("port of UDP on IPv6", udp6_port, port(udp6));
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
