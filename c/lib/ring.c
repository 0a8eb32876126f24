/*
 * Makes an io_uring that has taken as many requests and given as many results as another one: the kernel counts both
 * for itself, in numbers that programs compare theirs with, and that grow by requests only. So it is given requests
 * that do nothing (IORING_OP_NOP).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ckpt.h"

#define SQE_BYTES 64
#define HELPER_ENTRIES 64

struct ring {
	int fd;
	struct io_uring_params params;
	uint8_t *counters; /* IORING_OFF_SQ_RING */
	struct io_uring_sqe *requests;
	size_t counters_size, requests_size;
};

static uint32_t *word(const struct ring *ring, uint32_t offset)
{
	return (uint32_t *)(ring->counters + offset);
}

static void discard(struct ring *ring)
{
	if (ring->counters != MAP_FAILED)
		munmap(ring->counters, ring->counters_size);
	if (ring->requests != MAP_FAILED)
		munmap(ring->requests, ring->requests_size);
}

static int64_t make(struct ring *ring, uint32_t flags, uint32_t requests, uint32_t results)
{
	size_t result_size = flags & IORING_SETUP_CQE32 ? 32 : 16;
	int error;

	memset(ring, 0, sizeof(*ring));
	ring->counters = MAP_FAILED;
	ring->requests = MAP_FAILED;
	ring->params.flags = flags | IORING_SETUP_CQSIZE;
	ring->params.cq_entries = results;
	ring->fd = syscall(SYS_io_uring_setup, requests, &ring->params);
	if (ring->fd < 0)
		return -errno;
	ring->counters_size = ring->params.cq_off.cqes + results * result_size;
	ring->requests_size = (size_t)requests * SQE_BYTES << !!(flags & IORING_SETUP_SQE128);
	ring->counters = mmap(NULL, ring->counters_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
			      IORING_OFF_SQ_RING);
	if (ring->counters != MAP_FAILED)
		ring->requests = mmap(NULL, ring->requests_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
				      ring->fd, IORING_OFF_SQES);
	if (ring->requests != MAP_FAILED)
		return 0;
	error = errno;
	discard(ring);
	close(ring->fd);
	return -error;
}

/*
 * Lets the kernel take `count` requests, each of which is the first one: all entries of the array name it, or all
 * requests are the same. Results are thrown away: of this ring and of `other`.
 */
static int64_t submit(const struct ring *ring, uint32_t count, const struct ring *other)
{
	uint32_t *tail = word(ring, ring->params.sq_off.tail);

	while (count > 0) {
		uint32_t some = count < ring->params.sq_entries ? count : ring->params.sq_entries;

		__atomic_store_n(tail, *tail + some, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring->fd, some, 0, 0, NULL, 0) != some)
			return -EIO;
		*word(ring, ring->params.cq_off.head) = __atomic_load_n(word(ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE);
		*word(other, other->params.cq_off.head) = __atomic_load_n(word(other, other->params.cq_off.tail), __ATOMIC_ACQUIRE);
		count -= some;
	}
	return 0;
}

static void fill(const struct ring *ring, const struct io_uring_sqe *request)
{
	uint32_t step = ring->params.flags & IORING_SETUP_SQE128 ? 2 : 1;

	for (uint32_t i = 0; i < ring->params.sq_entries; i++)
		ring->requests[i * step] = *request;
}

/* Results without requests, as those of multishot ones: messages of another ring. */
static int64_t give_results(const struct ring *ring, uint32_t count)
{
	const struct io_uring_sqe message = { .opcode = IORING_OP_MSG_RING, .fd = ring->fd, .addr = IORING_MSG_DATA };
	struct ring helper;
	int64_t ret;

	if (count == 0)
		return 0;
	ret = make(&helper, 0, HELPER_ENTRIES, HELPER_ENTRIES);
	if (ret < 0)
		return ret;
	fill(&helper, &message);
	/* It must not give more at once than the other has room for. */
	if (ring->params.cq_entries < helper.params.sq_entries)
		helper.params.sq_entries = ring->params.cq_entries;
	ret = submit(&helper, count, ring);
	discard(&helper);
	close(helper.fd);
	return ret;
}

/*
 * `flags`: IORING_SETUP_*; `requests` and `results`: how many the two rings hold; `taken` and `given`: what the kernel
 * has counted. Returns a descriptor; -errno.
 */
EXPORT int64_t ckpt_make_ring(uint32_t flags, uint32_t requests, uint32_t results, uint32_t taken, uint32_t given)
{
	const struct io_uring_sqe nothing = { .opcode = IORING_OP_NOP };
	const struct io_uring_sqe silent = { .opcode = IORING_OP_NOP, .flags = IOSQE_CQE_SKIP_SUCCESS };
	uint32_t both = taken < given ? taken : given;
	struct ring ring;
	int64_t ret = make(&ring, flags, requests, results);

	if (ret < 0)
		return ret;
	fill(&ring, &nothing);
	ret = submit(&ring, both, &ring);
	if (!ret && taken > both) {
		fill(&ring, &silent);
		ret = submit(&ring, taken - both, &ring);
	}
	if (!ret)
		ret = give_results(&ring, given - both);
	if (!ret && (*word(&ring, ring.params.sq_off.head) != taken || *word(&ring, ring.params.cq_off.tail) != given))
		ret = -EIO;
	discard(&ring);
	if (!ret)
		return ring.fd;
	close(ring.fd);
	return ret;
}
