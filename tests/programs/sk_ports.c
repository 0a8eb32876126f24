/*
 * Sockets that share a port (SO_REUSEPORT): their order, which decides who gets what, also over processes; programs that
 * choose instead (SO_ATTACH_REUSEPORT_CBPF).
 */
#include "tree.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#define SENDERS 24
static struct sockaddr_in address;
static socklen_t length = sizeof(address);

static int shared(int type) {
  int fd = (int)MUST(socket(AF_INET, type, 0));
  const int one = 1;
  MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)));
  return fd;
}
static void bind_to(int fd, uint16_t port) {
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  MUST(bind(fd, (struct sockaddr *)&address, length));
  MUST(getsockname(fd, (struct sockaddr *)&address, &length));
}
static uint16_t port_of(int fd) {
  MUST(getsockname(fd, (struct sockaddr *)&address, &length));
  return address.sin_port;
}
static void choose(int fd, struct sock_filter *code, unsigned short count) {
  struct sock_fprog program = {count, code};
  MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)));
}
static void send_byte(int from, int to, char byte) {
  port_of(to);
  MUST(sendto(from, &byte, 1, 0, (struct sockaddr *)&address, length));
}
static void expect(const char *name, int fd, char byte) {
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  char got = -1;
  CHECK_EQ("%s: comes", 1, poll(&ready, 1, 5000), name);
  CHECK_EQ("%s: length", 1, (long)recv(fd, &got, 1, MSG_DONTWAIT), name);
  CHECK_EQ("%s: byte", byte, got, name);
}
/** Which of three has got something; it is taken out. */
static int receiver(const int *fds) {
  struct pollfd ready[3];
  for (int i = 0; i < 3; i++) ready[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
  poll(ready, 3, 5000);
  char byte;
  for (int i = 0; i < 3; i++) {
    if (ready[i].revents && recv(fds[i], &byte, 1, MSG_DONTWAIT) == 1) return i;
  }
  return -1;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* the first byte of a datagram is the number of who gets it; one is of a child */
  struct sock_filter by_byte[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_STMT(BPF_RET | BPF_A, 0)};
  int last = shared(SOCK_DGRAM), first = shared(SOCK_DGRAM);
  bind_to(first, 0);
  choose(first, by_byte, 2);
  pid_t child = tree_fork("child");
  if (child == 0) {
    int own = shared(SOCK_DGRAM);
    bind_to(own, port_of(first));
    close(first), close(last);
    tree_settled();
    expect("the child's", own, 1);
    tree_report(0);
  }
  tree_await("child");
  bind_to(last, port_of(first));
  /* no program: who gets what follows from the order; the numbers are in another one */
  int group[3], sender[SENDERS], before[SENDERS];
  for (int i = 0; i < 3; i++) group[i] = shared(SOCK_DGRAM);
  bind_to(group[2], 0), bind_to(group[0], port_of(group[2])), bind_to(group[1], port_of(group[2]));
  for (int i = 0; i < SENDERS; i++) {
    sender[i] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    bind_to(sender[i], 0);
    send_byte(sender[i], group[0], 1);
    before[i] = receiver(group);
  }
  /* TCP: all connections are of the second that has listened */
  struct sock_filter second[] = {BPF_STMT(BPF_RET | BPF_K, 1)};
  int listener[3];
  for (int i = 0; i < 3; i++) listener[i] = shared(SOCK_STREAM);
  bind_to(listener[0], 0), bind_to(listener[1], port_of(listener[0])), bind_to(listener[2], port_of(listener[0]));
  MUST(listen(listener[1], 5)), MUST(listen(listener[2], 5)), MUST(listen(listener[0], 5));
  choose(listener[0], second, 1);

  check_ready();

  /* the child's comes last: when it ends, its socket leaves the group, and the numbers change */
  send_byte(sender[0], first, 0), send_byte(sender[0], first, 2), send_byte(sender[0], first, 1);
  expect("the first", first, 0), expect("the last", last, 2);
  tree_collect("child");
  tree_wait(child, 0);
  for (int i = 0; i < SENDERS; i++) {
    send_byte(sender[i], group[0], 1);
    CHECK_EQ("who gets what sender %d has sent", before[i], receiver(group), i);
  }
  for (int i = 0; i < 4; i++) {
    int client = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    port_of(listener[0]);
    CHECK_EQ("connect", 0, connect(client, (struct sockaddr *)&address, length));
    struct pollfd ready = {.fd = listener[2], .events = POLLIN};
    CHECK_EQ("the second has it", 1, poll(&ready, 1, 5000));
    if (ready.revents) close((int)MUST(accept(listener[2], NULL, NULL)));
    close(client);
  }
  return check_finish();
}
