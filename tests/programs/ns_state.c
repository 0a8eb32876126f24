/*
 * The init of a pid namespace with its own host name, System V and POSIX limits and objects, loopback device, values
 * of the network, and clocks. The network is not its own where the argument "shared-net" is given.
 */
#include "ns_sysv.h"
#include <arpa/inet.h>
#include <mqueue.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

static void set(const char *path, const char *value) {
  int fd = (int)MUST(open(path, O_WRONLY));
  MUST(write(fd, value, strlen(value)));
  MUST(close(fd));
}

static long long now(clockid_t clock) {
  struct timespec time;
  MUST(clock_gettime(clock, &time));
  return time.tv_sec;
}

static int socket_at(int type, const char *address, int port, struct sockaddr_in *name) {
  *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &name->sin_addr);
  return (int)MUST(socket(AF_INET, type | SOCK_CLOEXEC, 0));
}

static short link_flags(void) {
  struct ifreq request = {.ifr_name = "lo"};
  int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
  MUST(ioctl(fd, SIOCGIFFLAGS, &request));
  close(fd);
  return request.ifr_flags;
}

static void set_link_up(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
  MUST(ioctl(fd, SIOCSIFFLAGS, &request));
  struct ifreq alias = {.ifr_name = "lo:1"};
  struct sockaddr_in *address = (struct sockaddr_in *)&alias.ifr_addr;
  address->sin_family = AF_INET;
  inet_pton(AF_INET, "10.77.0.1", &address->sin_addr);
  MUST(ioctl(fd, SIOCSIFADDR, &alias));
  close(fd);
}

/** Values of the network, in one text. */
static const char *network(char *text, size_t room) {
  static const char *const paths[] = {"/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/net/ipv4/conf/all/forwarding",
                                      "/proc/sys/net/ipv4/conf/lo/accept_local", "/proc/sys/net/core/somaxconn",
                                      "/proc/sys/net/unix/max_dgram_qlen", "/proc/sys/net/ipv4/ip_local_port_range",
                                      "/proc/sys/net/ipv4/conf/default/rp_filter"};
  size_t used = 0;
  for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
    used += snprintf(text + used, room - used, "%s ", check_proc(paths[i], ""));
  return text;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int own_net = argc < 3 || strcmp(argv[2], "shared-net");
  struct sockaddr_in name;
  struct utsname uts, uts_now;
  char before[1024], after[1024];
  /* What it sets would be the host's. */
  if (getpid() != 1) check_die("not the first process of new namespaces");
  MUST(sethostname("inside.example", 14));
  MUST(setdomainname("example", 7));
  MUST(uname(&uts));
  struct sysv objects = sysv_make();
  /* below what is there already */
  set("/proc/sys/kernel/msgmnb", "4000");
  set("/proc/sys/kernel/msgmax", "5000");
  set("/proc/sys/kernel/sem", "100 2000 30 40");
  set("/proc/sys/fs/mqueue/queues_max", "77");
  int segment = (int)MUST(shmget(0x77, 10000, IPC_CREAT | IPC_EXCL | 0600));
  char *shared = (char *)MUST(shmat(segment, NULL, 0));
  check_fill(shared, 10000, 5);
  struct mq_attr attributes = {.mq_maxmsg = 3, .mq_msgsize = 50};
  mqd_t queue = (mqd_t)MUST(mq_open("/kept", O_RDWR | O_CREAT | O_EXCL, 0640, &attributes));
  MUST(mq_send(queue, "second", 6, 1)), MUST(mq_send(queue, "first", 5, 9)), MUST(mq_close(queue));
  queue = (mqd_t)MUST(mq_open("/open", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes));
  MUST(mq_send(queue, "waits", 5, 0));
  int listener = -1, client = -1, server = -1;
  if (own_net) {
    set_link_up();
    set("/proc/sys/net/ipv4/conf/all/forwarding", "1");
    set("/proc/sys/net/ipv4/ip_default_ttl", "33");
    set("/proc/sys/net/ipv4/conf/lo/accept_local", "1");
    set("/proc/sys/net/ipv4/conf/default/rp_filter", "2");
    set("/proc/sys/net/core/somaxconn", "99");
    set("/proc/sys/net/unix/max_dgram_qlen", "21");
    set("/proc/sys/net/ipv4/ip_local_port_range", "4000 4100");
    listener = socket_at(SOCK_STREAM, "10.77.0.1", 7777, &name);
    MUST(bind(listener, (struct sockaddr *)&name, sizeof(name)));
    MUST(listen(listener, 5));
    client = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&name, sizeof(name)));
    server = (int)MUST(accept(listener, NULL, NULL));
    MUST(write(client, "unread", 6));
    network(before, sizeof(before));
  }
  long long monotonic = now(CLOCK_MONOTONIC), boottime = now(CLOCK_BOOTTIME);
  pid_t child = tree_fork("child");
  if (child == 0) {
    pid_t parent = getppid(), own = getpid();
    tree_settled();
    CHECK_EQ("parent of the child", parent, getppid());
    CHECK_EQ("pid of the child", own, getpid());
    MUST(uname(&uts_now));
    CHECK_STRING("host name of the child", uts.nodename, uts_now.nodename);
    check_filled("segment in the child", shared, 10000, 5);
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  CHECK_EQ("pid", 1, getpid());
  MUST(uname(&uts_now));
  CHECK_STRING("host name", uts.nodename, uts_now.nodename);
  CHECK_STRING("domain name", uts.domainname, uts_now.domainname);
  CHECK_STRING("msgmax", "5000", check_proc("/proc/sys/kernel/msgmax", ""));
  CHECK_STRING("sem", "100\t2000\t30\t40", check_proc("/proc/sys/kernel/sem", ""));
  CHECK_STRING("queues_max", "77", check_proc("/proc/sys/fs/mqueue/queues_max", ""));
  CHECK_EQ("segment", segment, shmget(0x77, 10000, 0));
  check_filled("segment", shared, 10000, 5);
  sysv_check(&objects);
  char message[64] = "";
  CHECK_EQ("queue that is open", 5, mq_receive(queue, message, sizeof(message), NULL));
  CHECK_STRING("queue that is open", "waits", message);
  MUST(mq_send(queue, "waits", 5, 0));
  mqd_t kept = mq_open("/kept", O_RDWR | O_NONBLOCK);
  struct mq_attr found = {0};
  struct stat file = {0};
  CHECK("queue that nobody has open", kept >= 0 && mq_getattr(kept, &found) == 0 && fstat(kept, &file) == 0);
  CHECK_EQ("its room", 3, found.mq_maxmsg);
  CHECK_EQ("bytes of its messages", 50, found.mq_msgsize);
  CHECK_EQ("its messages", 2, found.mq_curmsgs);
  CHECK_EQ("its mode", 0640, file.st_mode & 07777);
  memset(message, 0, sizeof(message));
  CHECK_EQ("its first message", 5, mq_receive(kept, message, sizeof(message), NULL));
  CHECK_STRING("its first message", "first", message);
  MUST(mq_send(kept, "first", 5, 9));
  /* a test takes no hour, and the offsets are longer */
  long long passed = now(CLOCK_MONOTONIC) - monotonic;
  CHECK("monotonic clock goes on: %lld s", passed >= 0 && passed < 3600, passed);
  passed = now(CLOCK_BOOTTIME) - boottime;
  CHECK("boot time goes on: %lld s", passed >= 0 && passed < 3600, passed);
  if (own_net) {
    char bytes[16] = "";
    CHECK("loopback is up", link_flags() & IFF_UP);
    CHECK_STRING("network", before, network(after, sizeof(after)));
    CHECK_EQ("unread bytes", 6, recv(server, bytes, sizeof(bytes), MSG_DONTWAIT));
    CHECK_STRING("unread bytes", "unread", bytes);
    CHECK_EQ("write", 5, write(server, "hello", 5));
    CHECK_EQ("read", 5, read(client, bytes, sizeof(bytes)));
    int again = socket_at(SOCK_STREAM, "127.0.0.1", 7778, &name);
    CHECK_EQ("bind", 0, bind(again, (struct sockaddr *)&name, sizeof(name)));
    int other = socket_at(SOCK_STREAM, "10.77.0.1", 7777, &name);
    CHECK_EQ("connect", 0, connect(other, (struct sockaddr *)&name, sizeof(name)));
    CHECK("accept", accept(listener, NULL, NULL) >= 0);
  }
  tree_collect("child");
  tree_wait(child, 0);
  return check_finish();
}
