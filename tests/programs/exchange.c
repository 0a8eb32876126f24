/*
 * One kind of descriptor, with the state that CRIU can save of it as well: what tests/interop exchanges with CRIU.
 *
 *   exchange DIRECTORY KIND
 */
#include "tree.h"
#include "words.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>

#ifndef UDPLITE_SEND_CSCOV
#define UDPLITE_SEND_CSCOV 10
#endif

static void set(int fd, int level, int option, int value) { MUST(setsockopt(fd, level, option, &value, sizeof(value))); }
static int get(int fd, int level, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  MUST(getsockopt(fd, level, option, &value, &length));
  return value;
}
static void nothing(const char *name, int fd) {
  char byte;
  CHECK_EQ("%s: nothing more", -1, recv(fd, &byte, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: error", EAGAIN, errno, name);
}
static void takes(const char *name, int fd, const char *text) {
  char got[64] = {0};
  CHECK_EQ("%s: length", (long)strlen(text), (long)read(fd, got, sizeof(got) - 1), name);
  CHECK_STRING(name, text, got);
}

static void pipes(void) {
  int full[2], ended[2], broken[2];
  MUST(pipe2(full, O_NONBLOCK | O_CLOEXEC)), MUST(pipe(ended)), MUST(pipe(broken));
  MUST(fcntl(full[1], F_SETPIPE_SZ, 1 << 18));
  static unsigned char bytes[200000], got[200000];
  check_fill(bytes, sizeof(bytes), 3);
  MUST(write(full[1], bytes, sizeof(bytes)));
  MUST(write(ended[1], "the end", 7)), close(ended[1]);
  close(broken[0]);
  int again = (int)MUST(dup(full[0]));
  check_ready();
  CHECK_EQ("size", 1 << 18, fcntl(full[0], F_GETPIPE_SZ));
  CHECK_EQ("flags", O_NONBLOCK, fcntl(again, F_GETFL) & O_NONBLOCK);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(full[1], F_GETFD));
  CHECK_EQ("content", (long)sizeof(got), (long)read(again, got, sizeof(got)));
  CHECK_BYTES("content", bytes, got, sizeof(got));
  takes("ended", ended[0], "the end"), takes("its end", ended[0], "");
  signal(SIGPIPE, SIG_IGN);
  CHECK_EQ("broken", -1, write(broken[1], "x", 1));
  CHECK_EQ("broken: error", EPIPE, errno);
}

static void fifo(void) {
  char path[4200];
  snprintf(path, sizeof(path), "%s/fifo", check_dir);
  MUST(mkfifo(path, 0600));
  int both = (int)MUST(open(path, O_RDWR)), reader = (int)MUST(open(path, O_RDONLY | O_NONBLOCK));
  int writer = (int)MUST(open(path, O_WRONLY));
  MUST(write(writer, "in the fifo", 11));
  close(both);
  check_ready();
  takes("content", reader, "in the fifo");
  MUST(write(writer, "more", 4)), takes("more", reader, "more");
  CHECK_EQ("flags", O_NONBLOCK, fcntl(reader, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
  close(writer), takes("the end", reader, "");
}

static void counters(void) {
  int events = (int)MUST(eventfd(7, EFD_NONBLOCK | EFD_CLOEXEC)), timers[3];
  const int clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME};
  for (int i = 0; i < 3; i++) {
    timers[i] = (int)MUST(timerfd_create(clocks[i], TFD_NONBLOCK));
    struct itimerspec times = {{i, 0}, {3600, 0}};
    MUST(timerfd_settime(timers[i], 0, &times, NULL));
  }
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGRTMIN + 3);
  MUST(sigprocmask(SIG_BLOCK, &set, NULL));
  int signals = (int)MUST(signalfd(-1, &set, SFD_NONBLOCK));
  raise(SIGUSR1);
  check_ready();
  uint64_t count = 0;
  CHECK_EQ("eventfd", 8, read(events, &count, 8));
  CHECK_EQ("count", 7, count);
  for (int i = 0; i < 3; i++) {
    struct itimerspec times = {{0}, {0}};
    MUST(timerfd_gettime(timers[i], &times));
    CHECK("time left", times.it_value.tv_sec > 3300 && times.it_value.tv_sec < 3600);
    CHECK_EQ("interval", i, times.it_interval.tv_sec);
  }
  struct signalfd_siginfo info = {0};
  CHECK_EQ("signalfd", (long)sizeof(info), (long)read(signals, &info, sizeof(info)));
  CHECK_EQ("signal", SIGUSR1, info.ssi_signo);
  CHECK_EQ("no more signals", -1, read(signals, &info, sizeof(info)));
  raise(SIGRTMIN + 3);
  CHECK_EQ("signalfd again", (long)sizeof(info), (long)read(signals, &info, sizeof(info)));
}

static void epolls(void) {
  int ends[2], inner = (int)MUST(epoll_create1(0)), outer = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
  MUST(pipe(ends));
  struct epoll_event watch = {EPOLLIN, {.u64 = 0x123456789abcdef0}}, nested = {EPOLLIN | EPOLLET, {.u64 = 2}};
  MUST(epoll_ctl(inner, EPOLL_CTL_ADD, ends[0], &watch));
  MUST(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &nested));
  check_ready();
  struct epoll_event got[2] = {0};
  CHECK_EQ("quiet", 0, epoll_wait(outer, got, 2, 0));
  MUST(write(ends[1], "x", 1));
  CHECK_EQ("outer", 1, epoll_wait(outer, got, 2, 5000));
  CHECK_EQ("outer data", 2, got[0].data.u64);
  CHECK_EQ("inner", 1, epoll_wait(inner, got, 2, 0));
  CHECK_EQ("inner data", 0x123456789abcdef0, got[0].data.u64);
  CHECK_EQ("inner events", EPOLLIN, got[0].events);
}

static void memfd(void) {
  int fd = (int)MUST(memfd_create("exchanged", MFD_ALLOW_SEALING));
  static unsigned char bytes[9000];
  check_fill(bytes, sizeof(bytes), 5);
  MUST(write(fd, bytes, sizeof(bytes)));
  MUST(lseek(fd, 17, SEEK_SET));
  MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK));
  char *shared = (char *)MUST(mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  check_ready();
  CHECK_EQ("position", 17, lseek(fd, 0, SEEK_CUR));
  CHECK_EQ("seals", F_SEAL_GROW | F_SEAL_SHRINK, fcntl(fd, F_GET_SEALS));
  check_filled("content", shared, sizeof(bytes), 5);
  shared[3] = 'y';
  char byte = 0;
  CHECK_EQ("pread", 1, pread(fd, &byte, 1, 3));
  CHECK_EQ("one object", 'y', byte);
}

static void pidfds(void) {
  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    for (;;) pause();
  }
  tree_await("child");
  int of_child = (int)MUST(syscall(SYS_pidfd_open, child, 0)), of_self = (int)MUST(syscall(SYS_pidfd_open, getpid(), 0));
  check_ready();
  struct pollfd ready = {.fd = of_child, .events = POLLIN};
  CHECK_EQ("lives", 0, poll(&ready, 1, 0));
  CHECK_EQ("signal to itself", 0, syscall(SYS_pidfd_send_signal, of_self, 0, NULL, 0));
  CHECK_EQ("signal", 0, syscall(SYS_pidfd_send_signal, of_child, SIGKILL, NULL, 0));
  CHECK_EQ("ends", 1, poll(&ready, 1, 10000));
  tree_wait(child, W_EXITCODE(0, SIGKILL));
}

static struct sockaddr_un named;
static socklen_t name_it(const char *format, ...) {
  va_list list;
  memset(&named, 0, sizeof(named));
  named.sun_family = AF_UNIX;
  va_start(list, format);
  int n = vsnprintf(named.sun_path, sizeof(named.sun_path), format, list);
  va_end(list);
  if (named.sun_path[0] != '@') return sizeof(named);
  named.sun_path[0] = 0;
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
}
static int bound_unix(int type, socklen_t length) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(bind(fd, (struct sockaddr *)&named, length));
  return fd;
}
static int connected_unix(int type, socklen_t length) {
  int fd = (int)MUST(socket(AF_UNIX, type, 0));
  MUST(connect(fd, (struct sockaddr *)&named, length));
  return fd;
}

static void unix_pairs(void) {
  const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
  int pairs[3][2], half[2];
  for (int i = 0; i < 3; i++) {
    MUST(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, pairs[i]));
    put(pairs[i][0], "one"), put(pairs[i][0], "two"), put(pairs[i][1], "back");
    set(pairs[i][1], SOL_SOCKET, SO_SNDBUF, 40000);
  }
  MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, half));
  put(half[0], "before the end"), MUST(shutdown(half[0], SHUT_WR));
  int quiet[2];
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, quiet));
  set(quiet[1], SOL_SOCKET, SO_PASSCRED, 1);
  check_ready();
  for (int i = 0; i < 3; i++) {
    if (types[i] == SOCK_STREAM) expect("all", pairs[i][1], "onetwo");
    else expect("first", pairs[i][1], "one"), expect("second", pairs[i][1], "two");
    nothing("pair", pairs[i][1]);
    expect("back", pairs[i][0], "back");
    put(pairs[i][1], "more"), expect("more", pairs[i][0], "more");
    CHECK_EQ("SO_SNDBUF", 80000, get(pairs[i][1], SOL_SOCKET, SO_SNDBUF));
    CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(pairs[i][0], F_GETFD));
  }
  CHECK_EQ("SO_PASSCRED", 1, get(quiet[1], SOL_SOCKET, SO_PASSCRED));
  expect("half", half[1], "before the end"), expect("its end", half[1], "");
  put(half[1], "still"), expect("the other half", half[0], "still");
}

static void unix_names(void) {
  const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
  int listeners[4], clients[4], servers[4], waiting[4];
  for (int i = 0; i < 4; i++) {
    const char *format = i % 2 ? "%s/l%d" : "@exchange-%s-%d";
    socklen_t length = name_it(format, i % 2 ? check_dir : "", i % 2 ? i : getpid() * 4 + i);
    listeners[i] = bound_unix(types[i / 2], length);
    MUST(listen(listeners[i], 3));
    clients[i] = connected_unix(types[i / 2], length);
    servers[i] = (int)MUST(accept(listeners[i], NULL, NULL));
    put(clients[i], "to the server"), put(servers[i], "to the client");
    waiting[i] = connected_unix(types[i / 2], length);
  }
  socklen_t length = name_it("%s/log", check_dir);
  int log = bound_unix(SOCK_DGRAM, length), sender = connected_unix(SOCK_DGRAM, length);
  put(sender, "a datagram");
  check_ready();
  for (int i = 0; i < 4; i++) {
    expect("server", servers[i], "to the server"), expect("client", clients[i], "to the client");
    struct pollfd ready = {.fd = listeners[i], .events = POLLIN};
    CHECK_EQ("one waits", 1, poll(&ready, 1, 0));
    if (!ready.revents) continue;
    int accepted = (int)MUST(accept(listeners[i], NULL, NULL));
    put(waiting[i], "waited"), expect("the one that waited", accepted, "waited");
    CHECK_EQ("no more", 0, poll(&ready, 1, 0));
  }
  expect("datagram", log, "a datagram"), put(sender, "another"), expect("another", log, "another");
}

/** Names that are gone, of an accepted connection and of a listener. */
static void unix_gone(void) {
  socklen_t length = name_it("%s/p", check_dir);
  int passing = bound_unix(SOCK_STREAM, length);
  MUST(listen(passing, 1));
  int left = connected_unix(SOCK_STREAM, length), right = (int)MUST(accept(passing, NULL, NULL));
  close(passing), unlink(named.sun_path);
  length = name_it("%s/gone", check_dir);
  int gone = bound_unix(SOCK_DGRAM, length), sender = connected_unix(SOCK_DGRAM, length);
  unlink(named.sun_path);
  put(left, "one way"), put(sender, "to what is gone");
  check_ready();
  expect("right", right, "one way"), put(right, "and back"), expect("left", left, "and back");
  expect("gone", gone, "to what is gone"), put(sender, "again"), expect("gone", gone, "again");
  CHECK_EQ("its path", -1, access(named.sun_path, F_OK));
}

static struct sockaddr_storage place;
static socklen_t local(int family) {
  memset(&place, 0, sizeof(place));
  place.ss_family = (sa_family_t)family;
  if (family == AF_INET6) ((struct sockaddr_in6 *)&place)->sin6_addr = in6addr_loopback;
  else ((struct sockaddr_in *)&place)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}
static int bound_inet(int family, int type, int protocol) {
  int fd = (int)MUST(socket(family, type, protocol));
  socklen_t length = local(family);
  MUST(bind(fd, (struct sockaddr *)&place, length));
  MUST(getsockname(fd, (struct sockaddr *)&place, &length));
  return fd;
}
static int connected_inet(int family, int type, int protocol) {
  int fd = (int)MUST(socket(family, type, protocol));
  MUST(connect(fd, (struct sockaddr *)&place, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)));
  return fd;
}

static void udp(void) {
  const int families[] = {AF_INET, AF_INET6}, protocols[] = {0, IPPROTO_UDPLITE};
  int receivers[4], senders[4], unbound = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
  for (int i = 0; i < 4; i++) {
    receivers[i] = bound_inet(families[i % 2], SOCK_DGRAM, protocols[i / 2]);
    senders[i] = connected_inet(families[i % 2], SOCK_DGRAM, protocols[i / 2]);
    set(receivers[i], SOL_SOCKET, SO_RCVBUF, 50000), set(senders[i], SOL_SOCKET, SO_PRIORITY, 3);
    set(senders[i], SOL_SOCKET, SO_BROADCAST, 1);
  }
  set(receivers[0], IPPROTO_IP, IP_PKTINFO, 1), set(receivers[0], IPPROTO_IP, IP_FREEBIND, 1);
  set(receivers[1], IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  set(unbound, IPPROTO_IP, IP_TTL, 17), set(unbound, IPPROTO_IP, IP_TOS, 8);
  check_ready();
  for (int i = 0; i < 4; i++) {
    CHECK_EQ("SO_RCVBUF", 100000, get(receivers[i], SOL_SOCKET, SO_RCVBUF));
    CHECK_EQ("SO_PRIORITY", 3, get(senders[i], SOL_SOCKET, SO_PRIORITY));
    CHECK_EQ("SO_BROADCAST", 1, get(senders[i], SOL_SOCKET, SO_BROADCAST));
    put(senders[i], "a datagram"), expect("datagram", receivers[i], "a datagram");
  }
  CHECK_EQ("IP_TTL", 17, get(unbound, IPPROTO_IP, IP_TTL)), CHECK_EQ("IP_TOS", 8, get(unbound, IPPROTO_IP, IP_TOS));
  CHECK_EQ("IP_PKTINFO", 1, get(receivers[0], IPPROTO_IP, IP_PKTINFO));
  CHECK_EQ("IP_FREEBIND", 1, get(receivers[0], IPPROTO_IP, IP_FREEBIND));
  CHECK_EQ("IPV6_RECVPKTINFO", 1, get(receivers[1], IPPROTO_IPV6, IPV6_RECVPKTINFO));
}

static void raw(void) {
  int icmp = (int)MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), own = (int)MUST(socket(AF_INET, SOCK_RAW, 253));
  int six = (int)MUST(socket(AF_INET6, SOCK_RAW, 253));
  set(own, IPPROTO_IP, IP_HDRINCL, 1);
  check_ready();
  CHECK_EQ("protocol", IPPROTO_ICMP, get(icmp, SOL_SOCKET, SO_PROTOCOL));
  CHECK_EQ("IP_HDRINCL", 1, get(own, IPPROTO_IP, IP_HDRINCL));
  CHECK_EQ("IPv6", 253, get(six, SOL_SOCKET, SO_PROTOCOL));
}

static void tcp_listen(void) {
  const int families[] = {AF_INET, AF_INET6};
  int listeners[2], idle = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), named_only = bound_inet(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_storage places[2];
  for (int i = 0; i < 2; i++) {
    listeners[i] = bound_inet(families[i], SOCK_STREAM | SOCK_NONBLOCK, 0);
    places[i] = place;
    MUST(listen(listeners[i], 9));
    set(listeners[i], SOL_SOCKET, SO_KEEPALIVE, 1), set(listeners[i], IPPROTO_TCP, TCP_KEEPIDLE, 77);
    set(listeners[i], IPPROTO_TCP, TCP_NODELAY, 1);
  }
  check_ready();
  for (int i = 0; i < 2; i++) {
    place = places[i];
    CHECK_EQ("SO_KEEPALIVE", 1, get(listeners[i], SOL_SOCKET, SO_KEEPALIVE));
    CHECK_EQ("TCP_KEEPIDLE", 77, get(listeners[i], IPPROTO_TCP, TCP_KEEPIDLE));
    CHECK_EQ("TCP_NODELAY", 1, get(listeners[i], IPPROTO_TCP, TCP_NODELAY));
    CHECK_EQ("nobody", -1, accept(listeners[i], NULL, NULL));
    int client = connected_inet(families[i], SOCK_STREAM, 0);
    struct pollfd ready = {.fd = listeners[i], .events = POLLIN};
    CHECK_EQ("somebody", 1, poll(&ready, 1, 5000));
    int server = (int)MUST(accept(listeners[i], NULL, NULL));
    put(client, "hello"), expect("server", server, "hello");
  }
  MUST(listen(named_only, 1)), MUST(connect(idle, (struct sockaddr *)&place, local(AF_INET)) == -1 ? 0 : 0);
}

static void netlink(void) {
  int route = (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_NOTIFY}, after = {0};
  MUST(bind(route, (struct sockaddr *)&address, sizeof(address)));
  socklen_t length = sizeof(address);
  MUST(getsockname(route, (struct sockaddr *)&address, &length));
  int events = (int)MUST(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT));
  struct sockaddr_nl one = {.nl_family = AF_NETLINK, .nl_groups = 1};
  MUST(bind(events, (struct sockaddr *)&one, sizeof(one)));
  set(events, SOL_NETLINK, NETLINK_PKTINFO, 1);
  check_ready();
  MUST(getsockname(route, (struct sockaddr *)&after, &length));
  CHECK_EQ("port", address.nl_pid, after.nl_pid);
  CHECK_EQ("groups", address.nl_groups, after.nl_groups);
  MUST(getsockname(events, (struct sockaddr *)&after, &length));
  CHECK_EQ("groups of events", 1, after.nl_groups);
}

static int frames(void) {
  int fd = (int)MUST(socket(AF_PACKET, SOCK_DGRAM, htons(0x88b5)));
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = 1};
  MUST(bind(fd, (struct sockaddr *)&address, sizeof(address)));
  return fd;
}
static void packets(void) {
  int fd = frames();
  struct packet_mreq request = {.mr_ifindex = 1, .mr_type = PACKET_MR_PROMISC};
  MUST(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)));
  set(fd, SOL_PACKET, PACKET_AUXDATA, 1), set(fd, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
  struct sock_filter code[] = {{BPF_RET | BPF_K, 0, 0, 0xffff}};
  struct sock_fprog filter = {1, code};
  MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
  int groups[2];
  for (int i = 0; i < 2; i++) {
    groups[i] = frames();
    set(groups[i], SOL_PACKET, PACKET_FANOUT, (getpid() & 0xffff) | PACKET_FANOUT_LB << 16);
  }
  check_ready();
  CHECK_EQ("PACKET_AUXDATA", 1, get(fd, SOL_PACKET, PACKET_AUXDATA));
  CHECK_EQ("PACKET_VERSION", TPACKET_V2, get(fd, SOL_PACKET, PACKET_VERSION));
  for (int i = 0; i < 2; i++)
    CHECK_EQ("PACKET_FANOUT", (getpid() & 0xffff) | PACKET_FANOUT_LB << 16, get(groups[i], SOL_PACKET, PACKET_FANOUT));
  CHECK_EQ("promiscuous", 0, setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &request, sizeof(request)));
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = 1, .sll_halen = 6};
  CHECK_EQ("send", 7, (long)sendto(fd, "a frame", 7, 0, (struct sockaddr *)&to, sizeof(to)));
  expect("frame", fd, "a frame");
}

static void pty(void) {
  int master = (int)MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY)), number = -1;
  MUST(ioctl(master, TIOCSPTLCK, &(int){0})), MUST(ioctl(master, TIOCGPTN, &number));
  char path[64];
  snprintf(path, sizeof(path), "/dev/pts/%d", number);
  int slave = (int)MUST(open(path, O_RDWR | O_NOCTTY));
  struct termios modes, after;
  MUST(tcgetattr(slave, &modes));
  modes.c_lflag &= (tcflag_t) ~(ICANON | ECHO), modes.c_oflag &= (tcflag_t)~OPOST;
  MUST(tcsetattr(slave, TCSANOW, &modes)), MUST(tcgetattr(slave, &modes));
  struct winsize size = {33, 121, 1, 2}, got = {0};
  MUST(ioctl(master, TIOCSWINSZ, &size));
  check_ready();
  int now = -1;
  MUST(ioctl(master, TIOCGPTN, &now)), CHECK_EQ("number", number, now);
  MUST(tcgetattr(slave, &after)), CHECK_BYTES("modes", &modes, &after, offsetof(struct termios, c_cc));
  MUST(ioctl(slave, TIOCGWINSZ, &got)), CHECK_BYTES("window", &size, &got, sizeof(size));
  MUST(write(master, "typed", 5));
  struct pollfd ready = {.fd = slave, .events = POLLIN};
  CHECK_EQ("poll", 1, poll(&ready, 1, 5000));
  takes("typed", slave, "typed");
}

static void tun(void) {
  int fd = (int)MUST(open("/dev/net/tun", O_RDWR | O_NONBLOCK));
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  strcpy(request.ifr_name, "exchange%d");
  MUST(ioctl(fd, TUNSETIFF, &request)), MUST(ioctl(fd, TUNSETPERSIST, 1));
  check_ready();
  struct ifreq after = {0};
  MUST(ioctl(fd, TUNGETIFF, &after));
  CHECK_STRING("name", request.ifr_name, after.ifr_name);
  CHECK_EQ("flags", IFF_TAP | IFF_NO_PI, after.ifr_flags & (IFF_TAP | IFF_TUN | IFF_NO_PI));
  MUST(ioctl(fd, TUNSETPERSIST, 0));
}

static void locks(void) {
  char path[4200];
  snprintf(path, sizeof(path), "%s/locked", check_dir);
  int flocked = (int)MUST(open(path, O_RDWR | O_CREAT, 0600)), record = (int)MUST(open(path, O_RDWR));
  int ofd = (int)MUST(open(path, O_RDWR));
  MUST(flock(flocked, LOCK_SH));
  struct flock first = {.l_type = F_WRLCK, .l_start = 3, .l_len = 4}, second = {.l_type = F_RDLCK, .l_start = 100, .l_len = 9};
  MUST(fcntl(record, F_SETLK, &first)), MUST(fcntl(ofd, F_OFD_SETLK, &second));
  check_ready();
  int other = (int)MUST(open(path, O_RDWR));
  struct flock seen = {.l_type = F_WRLCK, .l_start = 0, .l_len = 50};
  MUST(fcntl(other, F_OFD_GETLK, &seen));
  CHECK_EQ("record lock", getpid(), seen.l_pid);
  CHECK_EQ("its start", 3, seen.l_start), CHECK_EQ("its length", 4, seen.l_len);
  seen = (struct flock){.l_type = F_WRLCK, .l_start = 90, .l_len = 50};
  MUST(fcntl(other, F_OFD_GETLK, &seen));
  CHECK_EQ("lock of an open file", F_RDLCK, seen.l_type), CHECK_EQ("its start", 100, seen.l_start);
  CHECK_EQ("flock", -1, flock(other, LOCK_EX | LOCK_NB));
}

static void huge_pages(int sharing) {
  const size_t size = 2 << 20;
  char *memory = (char *)MUST(mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
  check_fill(memory + 5000, 70000, 9), strcpy(memory + size + 4096, "on the second page");
  check_ready();
  check_filled("first page", memory + 5000, 70000, 9);
  CHECK_STRING("second page", "on the second page", memory + size + 4096);
  CHECK_EQ("untouched", 0, memory[size]);
}
static void shared_huge_pages(void) { huge_pages(MAP_SHARED); }
static void private_huge_pages(void) { huge_pages(MAP_PRIVATE); }

static void opened_paths(void) {
  char path[4200];
  snprintf(path, sizeof(path), "%s/file", check_dir);
  close((int)MUST(open(path, O_CREAT | O_RDWR, 0600)));
  int name = (int)MUST(open(path, O_PATH)), directory = (int)MUST(open(check_dir, O_RDONLY | O_DIRECTORY));
  int append = (int)MUST(open(path, O_WRONLY | O_APPEND | O_CLOEXEC)), null = (int)MUST(open("/dev/null", O_RDWR));
  int proc = (int)MUST(open("/proc/sys/kernel/ostype", O_RDONLY)), space = (int)MUST(open("/proc/self/ns/uts", O_RDONLY));
  MUST(write(append, "text", 4));
  struct stat before, after;
  MUST(fstat(space, &before));
  check_ready();
  CHECK_EQ("O_PATH", O_PATH, fcntl(name, F_GETFL) & O_PATH);
  CHECK_EQ("O_APPEND", O_APPEND, fcntl(append, F_GETFL) & O_APPEND);
  CHECK_EQ("directory", 0, faccessat(directory, "file", R_OK, 0));
  CHECK_EQ("null", 3, write(null, "abc", 3));
  takes("proc", proc, "Linux\n");
  CHECK_EQ("namespace", 0, fstat(space, &after)), CHECK_EQ("the same", before.st_ino, after.st_ino);
}

static const struct {
  const char *name;
  void (*run)(void);
} kinds[] = {{"pipes", pipes},           {"fifo", fifo},           {"counters", counters},     {"epoll", epolls},
             {"memfd", memfd},           {"pidfds", pidfds},       {"unix-pairs", unix_pairs}, {"unix-names", unix_names},
             {"unix-gone", unix_gone},   {"udp", udp},             {"raw", raw},               {"tcp-listen", tcp_listen},
             {"netlink", netlink},       {"packets", packets},     {"pty", pty},               {"tun", tun},
             {"locks", locks},           {"paths", opened_paths},  {"huge-shared", shared_huge_pages},
             {"huge-private", private_huge_pages}};

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
    if (argc < 3 || strcmp(argv[2], kinds[i].name) != 0) continue;
    kinds[i].run();
    return check_finish();
  }
  check_die("no such kind");
}
