/*
 * Network devices that a program serves: one of IP packets with an address, a route and settings; one of Ethernet frames
 * with headers for offloads; one with two queues, which all go with the program; and one that is persistent.
 */
#include "check.h"
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/route.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int control;

static struct ifreq named(const char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof(request));
  snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
  return request;
}
static struct sockaddr ip(const char *text) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  inet_pton(AF_INET, text, &address.sin_addr);
  struct sockaddr any;
  memcpy(&any, &address, sizeof(any));
  return any;
}
static int attached(const char *name, int flags) {
  int fd = (int)MUST(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  struct ifreq request = named(name);
  request.ifr_flags = (short)flags;
  MUST(ioctl(fd, TUNSETIFF, &request));
  return fd;
}
static int flags_of(int fd) {
  struct ifreq request;
  memset(&request, 0, sizeof(request));
  MUST(ioctl(fd, TUNGETIFF, &request));
  return (unsigned short)request.ifr_flags;
}
static int get(int fd, unsigned long name) {
  int value = -1;
  MUST(ioctl(fd, name, &value));
  return value;
}
static int index_of(const char *name) {
  struct ifreq request = named(name);
  return ioctl(control, SIOCGIFINDEX, &request) == 0 ? request.ifr_ifindex : -1;
}
static int mtu_of(const char *name) {
  struct ifreq request = named(name);
  return ioctl(control, SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : -1;
}
/** Whether the table of routes has one by this device to this network, as it lies in memory. */
static bool has_route(const char *name, const char *network) {
  char line[256], device[32];
  unsigned found, wanted = inet_addr(network);
  FILE *table = fopen("/proc/net/route", "r");
  bool has = false;
  while (table && fgets(line, sizeof(line), table)) {
    if (sscanf(line, "%31s %x", device, &found) == 2 && !strcmp(device, name) && found == wanted) has = true;
  }
  if (table) fclose(table);
  return has;
}
/** A datagram for the other side of the device has to come to its queue. */
static void expect_packet(int fd) {
  int udp = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
  struct sockaddr to = ip("198.51.100.7");
  ((struct sockaddr_in *)&to)->sin_port = htons(9);
  CHECK_EQ("sent", 5, (long)sendto(udp, "hello", 5, 0, &to, sizeof(to)));
  close(udp);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  for (int i = 0; i < 100 && poll(&ready, 1, 5000) == 1; i++) {
    char packet[2048];
    ssize_t length = read(fd, packet, sizeof(packet));
    struct iphdr *header = (struct iphdr *)packet;
    /* the kernel itself sends packets of IPv6 */
    if (length != 33 || header->version != 4) continue;
    CHECK_EQ("from", inet_addr("192.0.2.1"), header->saddr);
    CHECK_EQ("to", inet_addr("198.51.100.7"), header->daddr);
    CHECK_BYTES("content", "hello", packet + 28, 5);
    return;
  }
  CHECK("the packet comes", false);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  control = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
  char name[4][IFNAMSIZ];
  for (int i = 0; i < 3; i++) snprintf(name[i], IFNAMSIZ, "ckt%d-%d", i, getpid() % 10000);
  /* made by who has started this one */
  snprintf(name[3], IFNAMSIZ, "ckpt-lasting");
  int tun = attached(name[0], IFF_TUN | IFF_NO_PI);
  struct ifreq request = named(name[0]);
  request.ifr_addr = ip("192.0.2.1"), MUST(ioctl(control, SIOCSIFADDR, &request));
  request.ifr_addr = ip("255.255.255.252"), MUST(ioctl(control, SIOCSIFNETMASK, &request));
  request.ifr_mtu = 1300, MUST(ioctl(control, SIOCSIFMTU, &request));
  request = named(name[0]), MUST(ioctl(control, SIOCGIFFLAGS, &request));
  request.ifr_flags |= IFF_UP, MUST(ioctl(control, SIOCSIFFLAGS, &request));
  struct rtentry route = {.rt_dst = ip("198.51.100.0"), .rt_genmask = ip("255.255.255.0"), .rt_flags = RTF_UP, .rt_dev = name[0]};
  MUST(ioctl(control, SIOCADDRT, &route));
  int owner = 1234, buffer = 77777, header = 12, one = 1;
  MUST(ioctl(tun, TUNSETOWNER, owner)), MUST(ioctl(tun, TUNSETSNDBUF, &buffer));
  int tap = attached(name[1], IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  MUST(ioctl(tap, TUNSETVNETHDRSZ, &header)), MUST(ioctl(tap, TUNSETVNETLE, &one));
  MUST(ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4));
  request = named(name[1]);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, "\x02\x11\x22\x33\x44\x55", 6);
  MUST(ioctl(control, SIOCSIFHWADDR, &request));
  int queue[2];
  for (int i = 0; i < 2; i++) queue[i] = attached(name[2], IFF_TUN | IFF_MULTI_QUEUE);
  int lasting = attached(name[3], IFF_TUN | IFF_NO_PI);
  int before[4], index[4];
  const int fds[4] = {tun, tap, queue[1], lasting};
  for (int i = 0; i < 4; i++) before[i] = flags_of(fds[i]), index[i] = index_of(name[i]);

  check_ready();

  for (int i = 0; i < 4; i++) {
    CHECK_EQ("flags of device %d", before[i], flags_of(fds[i]), i);
    CHECK_EQ("number of device %d", index[i], index_of(name[i]), i);
    CHECK("device %d does not block", fcntl(fds[i], F_GETFL) & O_NONBLOCK, i);
  }
  CHECK_EQ("flags of the other queue", before[2], flags_of(queue[0]));
  CHECK_EQ("room for packets", buffer, get(tun, TUNGETSNDBUF));
  CHECK_EQ("MTU", 1300, mtu_of(name[0]));
  CHECK("the route", has_route(name[0], "198.51.100.0"));
  request = named(name[0]), MUST(ioctl(control, SIOCGIFNETMASK, &request));
  struct sockaddr mask = ip("255.255.255.252");
  CHECK_BYTES("netmask", &mask, &request.ifr_addr, sizeof(mask));
  expect_packet(tun);
  CHECK_EQ("header", header, get(tap, TUNGETVNETHDRSZ));
  CHECK_EQ("little endian", 1, get(tap, TUNGETVNETLE));
  request = named(name[1]), MUST(ioctl(control, SIOCGIFHWADDR, &request));
  CHECK_BYTES("address of Ethernet", "\x02\x11\x22\x33\x44\x55", request.ifr_hwaddr.sa_data, 6);
  return check_finish();
}
