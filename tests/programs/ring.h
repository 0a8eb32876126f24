/*
 * Instances of io_uring by system calls: liburing would hide what is compared.
 */
#ifndef RING_H
#define RING_H
#include "check.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

/* linux/io_uring.h of Linux 6.5 and later */
#define IORING_SETUP_NO_MMAP (1U << 14)
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#define IORING_SETUP_CQE_MIXED (1U << 18)

struct uring {
  int fd;
  struct io_uring_params params;
  /* IORING_ENTER_*, at each call */
  unsigned flags;
  uint8_t *counters;
  struct io_uring_sqe *requests;
  size_t counters_size, requests_size;
};

static unsigned *word(const struct uring *ring, unsigned offset) { return (unsigned *)(ring->counters + offset); }
static void map_ring(struct uring *ring) {
  ring->counters = mmap(NULL, ring->counters_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
  ring->requests = mmap(NULL, ring->requests_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
  MUST(ring->counters == MAP_FAILED || ring->requests == MAP_FAILED ? -1 : 0);
}
static struct uring make_with(struct io_uring_params params, unsigned requests) {
  struct uring ring = {.params = params};
  ring.fd = (int)MUST(syscall(SYS_io_uring_setup, requests, &ring.params));
  ring.counters_size = ring.params.cq_off.cqes + ring.params.cq_entries * (params.flags & IORING_SETUP_CQE32 ? 32ul : 16ul);
  ring.requests_size = ring.params.sq_entries * (params.flags & IORING_SETUP_SQE128 ? 128ul : 64ul);
  if (params.flags & IORING_SETUP_NO_MMAP) {
    /* where the kernel was told to have them */
    ring.counters = (uint8_t *)params.cq_off.resv2;
    ring.requests = (struct io_uring_sqe *)params.sq_off.resv2;
  } else map_ring(&ring);
  return ring;
}
CHECK_UNUSED static struct uring make(unsigned flags, unsigned requests) {
  return make_with((struct io_uring_params){.flags = flags}, requests);
}
/** Puts a request into the ring; it is submitted later. */
static void put(struct uring *ring, struct io_uring_sqe request) {
  unsigned *tail = word(ring, ring->params.sq_off.tail), at = *tail & (ring->params.sq_entries - 1);
  ring->requests[at * (ring->params.flags & IORING_SETUP_SQE128 ? 2 : 1)] = request;
  if (!(ring->params.flags & IORING_SETUP_NO_SQARRAY)) word(ring, ring->params.sq_off.array)[at] = at;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
}
CHECK_UNUSED static long enter(struct uring *ring, unsigned submit, unsigned wait) {
  return syscall(SYS_io_uring_enter, ring->fd, submit, wait, ring->flags | (wait ? IORING_ENTER_GETEVENTS : 0), NULL, 0);
}
CHECK_UNUSED static void nop(struct uring *ring, uint64_t data) {
  put(ring, (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = data});
}
CHECK_UNUSED static void submit(struct uring *ring, uint64_t first, unsigned count) {
  for (unsigned i = 0; i < count; i++) nop(ring, first + i);
  CHECK_EQ("submitted", (long)count, enter(ring, count, 0));
}
/** Takes one result: its data; -1: none. */
static int64_t take(struct uring *ring, int *result) {
  unsigned *head = word(ring, ring->params.cq_off.head);
  if (*head == __atomic_load_n(word(ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE)) return -1;
  unsigned at = *head & (ring->params.cq_entries - 1);
  struct io_uring_cqe *cqe = (struct io_uring_cqe *)(ring->counters + ring->params.cq_off.cqes +
                                                     at * (ring->params.flags & IORING_SETUP_CQE32 ? 32ul : 16ul));
  int64_t data = (int64_t)cqe->user_data;
  *result = cqe->res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return data;
}
CHECK_UNUSED static void expect(const char *name, struct uring *ring, uint64_t first, unsigned count) {
  int result;
  for (unsigned i = 0; i < count; i++) CHECK_EQ("result of %s", (int64_t)(first + i), take(ring, &result), name);
}
/** Many rounds, from which it comes back empty. */
CHECK_UNUSED static void use(const char *name, struct uring *ring, unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++) submit(ring, i * 4, 4), expect(name, ring, i * 4, 4);
}
CHECK_UNUSED static void none(const char *name, struct uring *ring) {
  int result;
  CHECK_EQ("a further result of %s", (int64_t)-1, take(ring, &result), name);
}
#endif
