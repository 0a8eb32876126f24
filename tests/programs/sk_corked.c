/*
 * Datagrams of UDP and UDP-Lite that are not complete yet (UDP_CORK, MSG_MORE), also larger than a packet, connected or
 * not, with a TTL and a TOS of their own; and TCP under TCP_CORK, the peer of which has read nothing. The last bytes are sent when it goes on.
 */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#define CASES 7
#define TTL 77
#define TOS 0x48
static union address {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
} to[CASES];
static socklen_t length[CASES];
static int receiver[CASES], sender[CASES];
static char sent[60000], got[sizeof(sent) + 1];
static const struct {
  const char *name;
  int family, protocol;
  bool connects, option, given;
  int parts[3]; /* bytes of each call; the last when it goes on */
} cases[CASES] = {
    {"one call", AF_INET, IPPROTO_UDP, false, false, false, {5, 0, 7}},
    {"the option", AF_INET, IPPROTO_UDP, false, true, false, {5, 3000, 7}},
    {"connected", AF_INET, IPPROTO_UDP, true, false, true, {1, 40000, 9000}},
    {"IPv6", AF_INET6, IPPROTO_UDP, false, false, true, {100, 40000, 1}},
    {"IPv6 by the option", AF_INET6, IPPROTO_UDP, true, true, false, {1, 1, 1}},
    {"UDP-Lite", AF_INET, IPPROTO_UDPLITE, false, false, false, {10, 20, 30}},
    {"no bytes", AF_INET, IPPROTO_UDP, false, false, false, {0, 0, 3}},
};

static int bound(int family, int protocol, union address *address, socklen_t *size) {
  int fd = (int)MUST(socket(family, SOCK_DGRAM, protocol));
  memset(address, 0, sizeof(*address));
  address->any.sa_family = (sa_family_t)family;
  if (family == AF_INET) address->four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  else address->six.sin6_addr = in6addr_loopback;
  *size = family == AF_INET ? sizeof(address->four) : sizeof(address->six);
  MUST(bind(fd, &address->any, *size));
  MUST(getsockname(fd, &address->any, size));
  return fd;
}
static void send_part(int i, int at, int part, int flags) {
  struct sockaddr *address = cases[i].connects ? NULL : &to[i].any;
  MUST(sendto(sender[i], sent + at, (size_t)part, flags, address, address ? length[i] : 0));
}
/** The first bytes, which say what the datagram is given. */
static void begin(int i, int flags) {
  union {
    char bytes[2 * CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {{0}};
  struct iovec vector = {sent, (size_t)cases[i].parts[0]};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  if (!cases[i].connects) message.msg_name = &to[i].any, message.msg_namelen = length[i];
  struct cmsghdr *one = CMSG_FIRSTHDR(&message);
  for (int k = 0; k < 2; k++, one = CMSG_NXTHDR(&message, one)) {
    bool four = cases[i].family == AF_INET;
    one->cmsg_len = CMSG_LEN(sizeof(int)), one->cmsg_level = four ? IPPROTO_IP : IPPROTO_IPV6;
    one->cmsg_type = four ? (k ? IP_TOS : IP_TTL) : (k ? IPV6_TCLASS : IPV6_HOPLIMIT);
    *(int *)CMSG_DATA(one) = k ? TOS : TTL;
  }
  MUST(sendmsg(sender[i], &message, flags));
}
/** Takes a datagram: its length; with the TTL and the TOS that it came with. */
static long receive(int i, int *ttl, int *tos) {
  char control[256];
  struct iovec vector = {got, sizeof(got)};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  long bytes = recvmsg(receiver[i], &message, MSG_DONTWAIT);
  *ttl = *tos = -1;
  for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); bytes >= 0 && one; one = CMSG_NXTHDR(&message, one)) {
    bool four = one->cmsg_level == IPPROTO_IP;
    if (one->cmsg_type == (four ? IP_TTL : IPV6_HOPLIMIT)) memcpy(ttl, CMSG_DATA(one), sizeof(*ttl));
    if (one->cmsg_type == (four ? IP_TOS : IPV6_TCLASS)) *tos = *(uint8_t *)CMSG_DATA(one);
  }
  return bytes;
}
static int get(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  MUST(getsockopt(fd, level, name, &value, &size));
  return value;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const int one = 1, zero = 0;
  for (size_t i = 0; i < sizeof(sent); i++) sent[i] = (char)(i * 7 + i / 251);
  for (int i = 0; i < CASES; i++) {
    receiver[i] = bound(cases[i].family, cases[i].protocol, &to[i], &length[i]);
    sender[i] = (int)MUST(socket(cases[i].family, SOCK_DGRAM, cases[i].protocol));
    if (cases[i].connects) MUST(connect(sender[i], &to[i].any, length[i]));
    if (cases[i].option) MUST(setsockopt(sender[i], cases[i].protocol, UDP_CORK, &one, sizeof(one)));
    int flags = cases[i].option ? 0 : MSG_MORE;
    MUST(setsockopt(receiver[i], IPPROTO_IP, IP_RECVTTL, &one, sizeof(one)));
    MUST(setsockopt(receiver[i], IPPROTO_IP, IP_RECVTOS, &one, sizeof(one)));
    if (cases[i].family == AF_INET6) {
      MUST(setsockopt(receiver[i], IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof(one)));
      MUST(setsockopt(receiver[i], IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof(one)));
    }
    if (cases[i].given) begin(i, flags);
    else send_part(i, 0, cases[i].parts[0], flags);
    if (cases[i].parts[1]) send_part(i, cases[i].parts[0], cases[i].parts[1], flags);
  }
  union address address;
  socklen_t size = sizeof(address.four);
  int listener = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
  address.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  MUST(bind(listener, &address.any, size)), MUST(listen(listener, 1)), MUST(getsockname(listener, &address.any, &size));
  MUST(connect(client, &address.any, size));
  int server = (int)MUST(accept(listener, NULL, NULL));
  MUST(setsockopt(client, IPPROTO_TCP, TCP_CORK, &one, sizeof(one)));
  MUST(send(client, sent, 1000, 0));

  check_ready();

  for (int i = 0; i < CASES; i++) {
    const int *parts = cases[i].parts;
    int already = parts[0] + parts[1], all = already + parts[2];
    CHECK_EQ("%s: nothing has come", -1, recv(receiver[i], got, sizeof(got), MSG_DONTWAIT), cases[i].name);
    if (cases[i].option) CHECK_EQ("%s: UDP_CORK", 1, get(sender[i], cases[i].protocol, UDP_CORK), cases[i].name);
    send_part(i, already, parts[2], 0);
    if (cases[i].option) MUST(setsockopt(sender[i], cases[i].protocol, UDP_CORK, &zero, sizeof(zero)));
    struct pollfd ready = {.fd = receiver[i], .events = POLLIN};
    poll(&ready, 1, 2000);
    int ttl, tos;
    CHECK_EQ("%s: length", all, receive(i, &ttl, &tos), cases[i].name);
    CHECK_EQ("%s: TTL", cases[i].given ? TTL : 64, ttl, cases[i].name);
    CHECK_EQ("%s: TOS", cases[i].given ? TOS : 0, tos, cases[i].name);
    CHECK_BYTES("%s: content", sent, got, (size_t)all, cases[i].name);
  }
  CHECK_EQ("TCP_CORK", 1, get(client, IPPROTO_TCP, TCP_CORK));
  MUST(send(client, sent + 1000, 500, 0));
  MUST(setsockopt(client, IPPROTO_TCP, TCP_CORK, &zero, sizeof(zero)));
  CHECK_EQ("bytes of TCP", 1500, recv(server, got, 1500, MSG_WAITALL));
  CHECK_BYTES("content of TCP", sent, got, 1500);
  return check_finish();
}
