/*
 * Netlink and packet sockets: port ids, multicast groups also beyond the first 32, options; protocols, interfaces,
 * modes asked of an interface, filters, a fanout group of two. All on the loopback device.
 */
#include "check.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_nl name(int fd) {
  struct sockaddr_nl address = {0};
  socklen_t length = sizeof(address);
  MUST(getsockname(fd, (struct sockaddr *)&address, &length));
  return address;
}
static void set(int fd, int level, int option, int value) { MUST(setsockopt(fd, level, option, &value, sizeof(value))); }
static int get(int fd, int level, int option) {
  int value = 0;
  socklen_t length = sizeof(value);
  MUST(getsockopt(fd, level, option, &value, &length));
  return value;
}
static int bound(int protocol, uint32_t port, uint32_t groups) {
  int fd = (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups};
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  return fd;
}
/** Asks the kernel for its interfaces: it answers to who asks. */
static void ask(const char *what, int fd) {
  struct {
    struct nlmsghdr header;
    struct ifinfomsg body;
  } request = {{.nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 7},
               {.ifi_family = AF_UNSPEC, .ifi_index = 1}};
  char answer[16384] = {0};
  CHECK_EQ("%s: send", (long)sizeof(request), (long)send(fd, &request, sizeof(request), 0), what);
  long length = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
  struct nlmsghdr *header = (struct nlmsghdr *)answer;
  CHECK("%s: an answer", length > (long)sizeof(*header) && header->nlmsg_type == RTM_NEWLINK, what);
  CHECK_EQ("%s: for whom", (long long)name(fd).nl_pid, (long long)header->nlmsg_pid, what);
}
static int packet(int type, uint16_t protocol) {
  int fd = (int)MUST(socket(AF_PACKET, type, 0));
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = 1};
  struct sock_filter code[] = {{BPF_LD | BPF_B | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)},
                               {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, PACKET_OUTGOING},
                               {BPF_RET | BPF_K, 0, 0, 0xffff},
                               {BPF_RET | BPF_K, 0, 0, 0}};
  struct sock_fprog filter = {4, code};
  MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  return fd;
}
/** Sends a frame of a protocol of its own through the loopback device. */
static void expect(const char *what, int from, int fd, const char *text) {
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = 1, .sll_halen = 6};
  CHECK_EQ("%s: send", (long)strlen(text), (long)sendto(from, text, strlen(text), 0, (struct sockaddr *)&to, sizeof(to)), what);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 2000), what);
  char got[128] = {0};
  CHECK_EQ("%s: length", (long)strlen(text), (long)recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), what);
  CHECK_STRING(what, text, got);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int plain = (int)MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), automatic = bound(NETLINK_ROUTE, 0, 0);
  int chosen = bound(NETLINK_ROUTE, 0x40001234, 0), events = bound(NETLINK_ROUTE, 0, RTMGRP_IPV4_RULE | RTMGRP_NOTIFY);
  int queries = (int)MUST(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG)), user = bound(NETLINK_USERSOCK, 0, 2);
  set(events, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_STATS);
  set(events, SOL_NETLINK, NETLINK_PKTINFO, 1), set(events, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1);
  set(chosen, SOL_NETLINK, NETLINK_EXT_ACK, 1), set(chosen, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  struct sockaddr_nl peer = {.nl_family = AF_NETLINK, .nl_pid = name(user).nl_pid};
  int talks = bound(NETLINK_USERSOCK, 0, 0);
  MUST(connect(talks, (struct sockaddr *)&peer, sizeof(peer)));
  uint32_t automatic_id = name(automatic).nl_pid, events_groups = name(events).nl_groups, talks_id = name(talks).nl_pid;

  int frames = packet(SOCK_DGRAM, 0x88b5), all = packet(SOCK_RAW, ETH_P_ALL), idle = (int)MUST(socket(AF_PACKET, SOCK_RAW, 0));
  struct packet_mreq request = {.mr_ifindex = 1, .mr_type = PACKET_MR_PROMISC};
  MUST(setsockopt(idle, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)));
  set(idle, SOL_PACKET, PACKET_AUXDATA, 1), set(idle, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
  set(idle, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1), set(idle, SOL_PACKET, PACKET_RESERVE, 32);
  int fanout[2];
  for (int i = 0; i < 2; i++) {
    fanout[i] = packet(SOCK_DGRAM, 0x88b6);
    set(fanout[i], SOL_PACKET, PACKET_FANOUT, (getpid() & 0xffff) | PACKET_FANOUT_LB << 16);
  }
  int group = get(fanout[0], SOL_PACKET, PACKET_FANOUT);

  check_ready();

  CHECK_EQ("an id of the kernel's", automatic_id, name(automatic).nl_pid);
  CHECK_EQ("an id of its own", 0x40001234, name(chosen).nl_pid);
  CHECK_EQ("none", 0, name(plain).nl_pid);
  CHECK_EQ("groups", events_groups, name(events).nl_groups);
  uint32_t groups[8] = {0};
  socklen_t length = sizeof(groups);
  MUST(getsockopt(events, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &length));
  CHECK("a group beyond 32", groups[(RTNLGRP_STATS - 1) / 32] >> (RTNLGRP_STATS - 1) % 32 & 1);
  CHECK_EQ("NETLINK_PKTINFO", 1, get(events, SOL_NETLINK, NETLINK_PKTINFO));
  CHECK_EQ("NETLINK_NO_ENOBUFS", 1, get(events, SOL_NETLINK, NETLINK_NO_ENOBUFS));
  CHECK_EQ("NETLINK_EXT_ACK", 1, get(chosen, SOL_NETLINK, NETLINK_EXT_ACK));
  CHECK_EQ("NETLINK_EXT_ACK of another", 0, get(events, SOL_NETLINK, NETLINK_EXT_ACK));
  CHECK_EQ("NETLINK_GET_STRICT_CHK", 1, get(chosen, SOL_NETLINK, NETLINK_GET_STRICT_CHK));
  CHECK_EQ("the type", SOCK_DGRAM, get(queries, SOL_SOCKET, SO_TYPE));
  ask("automatic", automatic), ask("chosen", chosen), ask("plain", plain);
  CHECK_EQ("talk", 5, (long)send(talks, "hello", 5, 0));
  char got[16] = {0};
  struct sockaddr_nl from = {0};
  length = sizeof(from);
  CHECK_EQ("heard", 5, (long)recvfrom(user, got, sizeof(got), MSG_DONTWAIT, (struct sockaddr *)&from, &length));
  CHECK_EQ("from whom", talks_id, from.nl_pid);

  expect("frames", frames, frames, "a frame of its own");
  struct pollfd ready = {.fd = all, .events = POLLIN};
  CHECK_EQ("all", 1, poll(&ready, 1, 2000));
  CHECK_EQ("PACKET_AUXDATA", 1, get(idle, SOL_PACKET, PACKET_AUXDATA));
  CHECK_EQ("PACKET_VERSION", TPACKET_V2, get(idle, SOL_PACKET, PACKET_VERSION));
  CHECK_EQ("PACKET_IGNORE_OUTGOING", 1, get(idle, SOL_PACKET, PACKET_IGNORE_OUTGOING));
  CHECK_EQ("PACKET_RESERVE", 32, get(idle, SOL_PACKET, PACKET_RESERVE));
  for (int i = 0; i < 2; i++) CHECK_EQ("PACKET_FANOUT", group, get(fanout[i], SOL_PACKET, PACKET_FANOUT));
  CHECK_EQ("promiscuous", 0, setsockopt(idle, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &request, sizeof(request)));
  return check_finish();
}
