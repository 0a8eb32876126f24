/*
 * Packet sockets with rings in memory, on the loopback device: receiving by frames (TPACKET_V1, V2) and by blocks
 * (TPACKET_V3), sending; with packets that were read, that were not, none left; a full ring; one that a child has, too.
 * After the restore the program reads on from where it was, and the kernel fills and sends on.
 */
#include "tree.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>

enum { BLOCK = 4096, FRAME = 512, LAST = 100 };

struct ring {
  int fd, version;
  unsigned blocks, at; /* the frame or block that comes next */
  uint16_t protocol;
  char *memory;
};

static int sender;
static int lo;

static void send_to(uint16_t protocol, const char *text) {
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = lo, .sll_halen = 6};
  if (sendto(sender, text, strlen(text) + 1, 0, (struct sockaddr *)&to, sizeof(to)) < 0) check_die("sendto: %s", strerror(errno));
}
static void set(int fd, int option, const void *value, socklen_t length) { MUST(setsockopt(fd, SOL_PACKET, option, value, length)); }

static struct ring receiver(int version, unsigned blocks, uint16_t protocol, unsigned timeout) {
  struct ring ring = {.version = version, .blocks = blocks, .protocol = protocol};
  /* only what comes in, not what goes out */
  struct sock_filter code[] = {{BPF_LD | BPF_B | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)},
                               {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, PACKET_OUTGOING},
                               {BPF_RET | BPF_K, 0, 0, 0xffff},
                               {BPF_RET | BPF_K, 0, 0, 0}};
  struct sock_fprog filter = {4, code};
  ring.fd = (int)MUST(socket(AF_PACKET, SOCK_DGRAM, 0));
  MUST(setsockopt(ring.fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
  set(ring.fd, PACKET_VERSION, &version, sizeof(version));
  struct tpacket_req3 request = {BLOCK, blocks, FRAME, blocks * (BLOCK / FRAME), timeout, 0, 0};
  set(ring.fd, PACKET_RX_RING, &request, version == TPACKET_V3 ? sizeof(request) : sizeof(struct tpacket_req));
  ring.memory = (char *)MUST(mmap(NULL, BLOCK * blocks, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0));
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = lo};
  MUST(bind(ring.fd, (struct sockaddr *)&address, sizeof(address)));
  return ring;
}
static unsigned frames(const struct ring *ring) { return ring->blocks * (BLOCK / FRAME); }
static volatile unsigned *status_of(const struct ring *ring) {
  size_t unit = ring->version == TPACKET_V3 ? BLOCK : FRAME, at = ring->version == TPACKET_V3 ? 8 : 0;
  return (volatile unsigned *)(ring->memory + ring->at * unit + at);
}
static void wait_status(const char *name, const struct ring *ring, unsigned wanted) {
  for (int i = 0; (*status_of(ring) & TP_STATUS_USER) != wanted; i++) {
    if (i > 5000) {
      CHECK_EQ("%s: status of %u", wanted, *status_of(ring), name, ring->at);
      return;
    }
    check_sleep_ms(1);
  }
}
static void give_back(struct ring *ring) {
  *status_of(ring) = TP_STATUS_KERNEL;
  ring->at = (ring->at + 1) % (ring->version == TPACKET_V3 ? ring->blocks : frames(ring));
}
/** The next frame holds this. */
static void take(const char *name, struct ring *ring, const char *text) {
  wait_status(name, ring, TP_STATUS_USER);
  char *frame = ring->memory + ring->at * FRAME;
  unsigned net = ring->version == TPACKET_V1 ? ((struct tpacket_hdr *)frame)->tp_net : ((struct tpacket2_hdr *)frame)->tp_net;
  CHECK_STRING(name, text, frame + net);
  give_back(ring);
}
/** The packets of the next block, the first of which is this one; how many they are. */
static unsigned take_block(const char *name, struct ring *ring, unsigned number) {
  wait_status(name, ring, TP_STATUS_USER);
  struct tpacket_block_desc *block = (void *)(ring->memory + ring->at * BLOCK);
  char *at = (char *)block + block->hdr.bh1.offset_to_first_pkt;
  unsigned count = block->hdr.bh1.num_pkts;
  CHECK("%s: packets in a block", count > 0, name);
  for (unsigned i = 0; i < count; i++) {
    struct tpacket3_hdr *packet = (void *)at;
    CHECK_STRING("%s: packet %u", check_name("%u", number + i), at + packet->tp_net, name, number + i);
    CHECK_EQ("%s: next of packet %u", i + 1 < count, packet->tp_next_offset != 0, name, number + i);
    at += packet->tp_next_offset;
  }
  give_back(ring);
  return count;
}
static unsigned take_blocks(const char *name, struct ring *ring, unsigned from, unsigned to) {
  while (from < to && !check_used) from += take_block(name, ring, from);
  CHECK_EQ("%s: all packets", to, from, name);
  return from;
}
static void send_numbers(uint16_t protocol, unsigned from, unsigned to) {
  for (unsigned i = from; i < to; i++) send_to(protocol, check_name("%u", i));
}

/** A ring whose frames are sent: `at` is the next one. */
static void send_frame(struct ring *ring, const char *text) {
  char *frame = ring->memory + ring->at * FRAME;
  size_t length = strlen(text) + 1;
  volatile unsigned *status;
  if (ring->version == TPACKET_V3) {
    struct tpacket3_hdr *header = (void *)frame;
    header->tp_next_offset = 0, header->tp_len = (unsigned)length, status = &header->tp_status;
    strcpy(frame + TPACKET3_HDRLEN - sizeof(struct sockaddr_ll), text);
  } else {
    struct tpacket2_hdr *header = (void *)frame;
    header->tp_len = (unsigned)length, status = &header->tp_status;
    strcpy(frame + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), text);
  }
  *status = TP_STATUS_SEND_REQUEST;
  CHECK_EQ("send of frame %u", (long)length, (long)send(ring->fd, NULL, 0, 0), ring->at);
  for (int i = 0; i < 5000 && (*status & 3); i++) check_sleep_ms(1);
  CHECK_EQ("frame %u was sent", 0, *status & 3, ring->at);
  ring->at = (ring->at + 1) % frames(ring);
}
static struct ring transmitter(int version, uint16_t protocol) {
  struct ring ring = {.version = version, .blocks = 2, .protocol = protocol};
  ring.fd = (int)MUST(socket(AF_PACKET, SOCK_DGRAM, 0));
  set(ring.fd, PACKET_VERSION, &version, sizeof(version));
  struct tpacket_req3 request = {BLOCK, 2, FRAME, 2 * (BLOCK / FRAME), 0, 0, 0};
  set(ring.fd, PACKET_TX_RING, &request, version == TPACKET_V3 ? sizeof(request) : sizeof(struct tpacket_req));
  ring.memory = (char *)MUST(mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0));
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = 0, .sll_ifindex = lo};
  MUST(bind(ring.fd, (struct sockaddr *)&address, sizeof(address)));
  return ring;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  lo = (int)if_nametoindex("lo");
  MUST(sender = socket(AF_PACKET, SOCK_DGRAM, 0));
  /* all read; some unread; all in use, and more than fits */
  struct ring read = receiver(TPACKET_V2, 2, 0x88b6, 0), unread = receiver(TPACKET_V1, 2, 0x88b7, 0), full = receiver(TPACKET_V2, 1, 0x3001, 0);
  for (int i = 0; i < 21; i++) send_to(read.protocol, check_name("%d", i)), take("read", &read, check_name("%d", i));
  for (int i = 0; i < 5; i++) send_to(unread.protocol, check_name("%d", i)), take("unread", &unread, check_name("%d", i));
  for (int i = 5; i < 17; i++) send_to(unread.protocol, check_name("%d", i));
  for (int i = 0; i < 3; i++) send_to(full.protocol, check_name("%d", i)), take("full", &full, check_name("%d", i));
  for (int i = 3; i < 20; i++) send_to(full.protocol, check_name("%d", i));
  /* blocks: none yet, one that is open, several unread, all in use */
  struct ring fresh = receiver(TPACKET_V3, 3, 0x3002, 5), open = receiver(TPACKET_V3, 4, 0x3003, 1000000);
  struct ring blocks = receiver(TPACKET_V3, 5, 0x3004, 5), stuck = receiver(TPACKET_V3, 3, 0x3005, 5);
  send_numbers(open.protocol, 0, 3);
  send_numbers(blocks.protocol, 0, LAST);
  unsigned number = 0;
  while (number < 40) number += take_block("blocks", &blocks, number);
  send_numbers(stuck.protocol, 0, 3 * LAST);
  /* two that send, and who receives it; a child has them, too */
  struct ring two = transmitter(TPACKET_V2, 0), three = transmitter(TPACKET_V3, 0);
  for (int i = 0; i < 5; i++) send_frame(&two, "early"), send_frame(&three, "early");
  unsigned shared_at = unread.at;
  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    struct ring view = unread;
    view.at = (shared_at + 11) % frames(&view);
    char *frame = view.memory + view.at * FRAME;
    CHECK_STRING("the child's view", "16", frame + ((struct tpacket_hdr *)frame)->tp_net);
    tree_report(0);
  }
  tree_await("child");
  check_sleep_ms(50); /* blocks are retired by then, but for the open one */
  check_ready();
  tree_collect("child"), tree_wait(child, 0);
  for (int i = 0; i < 40; i++) send_to(read.protocol, check_name("r%d", i)), take("read on", &read, check_name("r%d", i));
  for (int i = 5; i < 17; i++) take("unread before", &unread, check_name("%d", i));
  for (int i = 0; i < 40; i++) send_to(unread.protocol, check_name("u%d", i)), take("unread on", &unread, check_name("u%d", i));
  for (int i = 3; i < 11; i++) take("full before", &full, check_name("%d", i));
  for (int i = 0; i < 20; i++) send_to(full.protocol, check_name("f%d", i)), take("full on", &full, check_name("f%d", i));
  send_numbers(fresh.protocol, 0, 20), take_blocks("fresh", &fresh, 0, 20);
  send_numbers(open.protocol, 3, 4 * BLOCK / 160);
  unsigned seen = take_block("open", &open, 0);
  while (seen < 3 * BLOCK / 160 && !check_used) seen += take_block("open", &open, seen);
  take_blocks("blocks before", &blocks, number, LAST);
  send_numbers(blocks.protocol, LAST, 2 * LAST), take_blocks("blocks on", &blocks, LAST, 2 * LAST);
  unsigned had = 0;
  for (int i = 0; i < 3; i++) had += take_block("stuck", &stuck, had);
  CHECK("some were lost", had < 3 * LAST);
  check_sleep_ms(20);
  send_numbers(stuck.protocol, 7, 20), take_blocks("stuck on", &stuck, 7, 20);
  for (int i = 0; i < 30; i++) send_frame(&two, "late"), send_frame(&three, "late");
  return check_finish();
}
