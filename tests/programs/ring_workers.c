/*
 * An io_uring whose requests are done by threads of the kernel, which stay for seconds afterwards: they are no threads of
 * the program, and others do the requests that come later.
 */
#include "check.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

static struct io_uring_params params;
static uint8_t *counters;
static struct io_uring_sqe *requests;
static char bytes[16];

static unsigned *word(unsigned offset) { return (unsigned *)(counters + offset); }
/** A read that a thread of the kernel is told to do. */
static void read_by_worker(int ring, int file) {
  unsigned *tail = word(params.sq_off.tail), at = *tail & (params.sq_entries - 1);
  memset(bytes, 0, sizeof(bytes));
  requests[at] = (struct io_uring_sqe){.opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .fd = file,
                                       .addr = (uint64_t)bytes, .len = sizeof(bytes)};
  word(params.sq_off.array)[at] = at;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  CHECK_EQ("a request", 1L, syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
  unsigned *head = word(params.cq_off.head);
  struct io_uring_cqe *results = (struct io_uring_cqe *)(counters + params.cq_off.cqes);
  CHECK_EQ("a result", 6, results[*head & (params.cq_entries - 1)].res);
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  CHECK_EQ("what was read", 0, memcmp(bytes, "worker", 6));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200];
  snprintf(path, sizeof(path), "%s/file", check_dir);
  int file = (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
  MUST(pwrite(file, "worker", 6, 0));
  int ring = (int)MUST(syscall(SYS_io_uring_setup, 8, &params));
  size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  requests = mmap(NULL, params.sq_entries * 64, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  MUST(counters == MAP_FAILED || (void *)requests == MAP_FAILED ? -1 : 0);
  for (int i = 0; i < 20; i++) read_by_worker(ring, file);
  check_ready();
  for (int i = 0; i < 20; i++) read_by_worker(ring, file);
  return check_finish();
}
