/*
 * Brings an io_uring to where another one was: the kernel counts the requests it has taken and the results it has given
 * for itself, in numbers that programs compare theirs with, and that grow by requests only. So it is given requests that
 * do nothing (IORING_OP_NOP). For libckpt, and for the agent: some rings can be used by one thread only.
 */
#ifndef CKPT_COUNT_RING_H
#define CKPT_COUNT_RING_H

#include <linux/io_uring.h>
#include "raw_call.h"

#define NR_MMAP 9
#define NR_MUNMAP 11
#define NR_CLOSE 3
#define NR_SCHED_YIELD 24
#define NR_IO_URING_SETUP 425
#define NR_IO_URING_ENTER 426
#define RING_PROT 3      /* PROT_READ | PROT_WRITE */
#define RING_MAP 0x8001  /* MAP_SHARED | MAP_POPULATE */
#define RING_FAILED 5    /* EIO */
#define HELPER_ENTRIES 64

/* lib/restore/bound_rings.ts writes this layout for the agent. */
struct ring_count {
	uint64_t counters; /* IORING_OFF_SQ_RING; 0: both are to be mapped */
	uint64_t entries;  /* IORING_OFF_SQES */
	uint32_t flags, requests, results; /* IORING_SETUP_*; how many the two rings hold */
	uint32_t taken, given; /* what the kernel is to have counted */
	uint32_t unused;
	struct io_uring_params helper; /* zeros */
};

struct counted_ring {
	int64_t fd;
	uint8_t *counters;
	struct io_uring_sqe *entries;
	uint32_t flags, requests;
	const struct io_uring_params *offsets; /* the same for all rings */
};

static inline uint32_t *ring_word(const struct counted_ring *ring, uint32_t offset)
{
	return (uint32_t *)(ring->counters + offset);
}

static inline uint32_t given_by(const struct counted_ring *ring)
{
	return __atomic_load_n(ring_word(ring, ring->offsets->cq_off.tail), __ATOMIC_ACQUIRE);
}

static inline void throw_results(const struct counted_ring *ring)
{
	__atomic_store_n(ring_word(ring, ring->offsets->cq_off.head), given_by(ring), __ATOMIC_RELEASE);
}

static inline int64_t enter_ring(const struct counted_ring *ring, uint32_t submit, uint32_t wait, uint32_t flags)
{
	return raw_call(NR_IO_URING_ENTER, ring->fd, submit, wait, flags, 0, 0);
}

/* All requests of the ring are to be this one. */
static inline void fill_ring(const struct counted_ring *ring, uint8_t opcode, uint8_t flags, int64_t fd)
{
	uint32_t step = ring->flags & IORING_SETUP_SQE128 ? 2 : 1;

	for (uint32_t i = 0; i < ring->requests; i++) {
		struct io_uring_sqe *entry = &ring->entries[i * step];

		entry->opcode = opcode;
		entry->flags = flags;
		entry->fd = fd;
	}
}

/* Lets the kernel take no more requests than the ring holds. */
static int64_t take_requests(const struct counted_ring *ring, uint32_t count)
{
	uint32_t *tail = ring_word(ring, ring->offsets->sq_off.tail);
	const uint32_t *head = ring_word(ring, ring->offsets->sq_off.head);
	int64_t ret;

	__atomic_store_n(tail, *tail + count, __ATOMIC_RELEASE);
	if (!(ring->flags & IORING_SETUP_SQPOLL)) {
		ret = enter_ring(ring, count, 0, 0);
		return ret < 0 || ret == count ? ret : -RING_FAILED;
	}
	while (__atomic_load_n(head, __ATOMIC_ACQUIRE) != *tail) {
		ret = enter_ring(ring, count, 0, IORING_ENTER_SQ_WAKEUP);
		if (ret < 0)
			return ret;
		raw_call(NR_SCHED_YIELD, 0, 0, 0, 0, 0, 0);
	}
	return 0;
}

static int64_t take_all(const struct counted_ring *ring, uint32_t count)
{
	while (count > 0) {
		uint32_t some = count < ring->requests ? count : ring->requests;
		int64_t ret = take_requests(ring, some);

		if (ret < 0)
			return ret;
		throw_results(ring);
		count -= some;
	}
	return 0;
}

/* Results without requests, as those of multishot ones: messages of another ring. */
static int64_t give_all(const struct counted_ring *ring, const struct counted_ring *helper, uint32_t count,
			uint32_t room)
{
	fill_ring(helper, IORING_OP_MSG_RING, 0, ring->fd);
	while (count > 0) {
		uint32_t some = count < helper->requests ? count : helper->requests;
		int64_t ret;

		if (some > room)
			some = room;
		ret = take_requests(helper, some);
		/* The thread that may use it gives itself the results, when it waits for them. */
		if (ret >= 0 && ring->flags & IORING_SETUP_DEFER_TASKRUN)
			ret = enter_ring(ring, 0, some, IORING_ENTER_GETEVENTS);
		if (ret < 0)
			return ret;
		throw_results(helper);
		throw_results(ring);
		count -= some;
	}
	return 0;
}

static inline int64_t map_ring(int64_t fd, uint64_t length, uint64_t offset)
{
	return raw_call(NR_MMAP, 0, length, RING_PROT, RING_MAP, fd, offset);
}

static inline int is_error(int64_t result)
{
	return (uint64_t)result >= (uint64_t)-4095;
}

static inline uint64_t counters_size(const struct counted_ring *ring, uint32_t results)
{
	return ring->offsets->cq_off.cqes + (uint64_t)results * (ring->flags & IORING_SETUP_CQE32 ? 32 : 16);
}

static inline uint64_t entries_size(const struct counted_ring *ring)
{
	return (uint64_t)ring->requests * (ring->flags & IORING_SETUP_SQE128 ? 128 : 64);
}

static int64_t map_rings(struct counted_ring *ring, uint32_t results)
{
	int64_t counters = map_ring(ring->fd, counters_size(ring, results), IORING_OFF_SQ_RING);
	int64_t entries = map_ring(ring->fd, entries_size(ring), IORING_OFF_SQES);

	ring->counters = (uint8_t *)counters;
	ring->entries = (struct io_uring_sqe *)entries;
	return is_error(counters) ? counters : is_error(entries) ? entries : 0;
}

/* What could not be mapped is no address: that fails, and does nothing. */
static void unmap_rings(const struct counted_ring *ring, uint32_t results)
{
	raw_call(NR_MUNMAP, (uint64_t)ring->counters, counters_size(ring, results), 0, 0, 0, 0);
	raw_call(NR_MUNMAP, (uint64_t)ring->entries, entries_size(ring), 0, 0, 0, 0);
}

static int64_t count_mapped(const struct counted_ring *ring, const struct counted_ring *helper,
			    const struct ring_count *wanted)
{
	uint32_t both = wanted->taken < wanted->given ? wanted->taken : wanted->given;
	int64_t ret;

	fill_ring(ring, IORING_OP_NOP, 0, 0);
	ret = take_all(ring, both);
	if (ret >= 0) {
		fill_ring(ring, IORING_OP_NOP, IOSQE_CQE_SKIP_SUCCESS, 0);
		ret = take_all(ring, wanted->taken - both);
	}
	if (ret >= 0)
		ret = give_all(ring, helper, wanted->given - both, wanted->results);
	if (ret < 0)
		return ret;
	return *ring_word(ring, ring->offsets->sq_off.head) == wanted->taken && given_by(ring) == wanted->given
		       ? 0
		       : -RING_FAILED;
}

/* Returns 0, or -errno. The ring is new. */
static int64_t count_ring(int64_t fd, struct ring_count *wanted)
{
	struct io_uring_params *params = &wanted->helper;
	struct counted_ring helper = { .requests = HELPER_ENTRIES, .offsets = params };
	struct counted_ring ring = { fd, (uint8_t *)wanted->counters, (struct io_uring_sqe *)wanted->entries, wanted->flags,
				     wanted->requests, params };
	int64_t ret;

	if (wanted->taken == 0 && wanted->given == 0)
		return 0;
	helper.fd = raw_call(NR_IO_URING_SETUP, HELPER_ENTRIES, (uint64_t)params, 0, 0, 0, 0);
	if (helper.fd < 0)
		return helper.fd;
	ret = map_rings(&helper, params->cq_entries);
	if (ret >= 0 && wanted->counters == 0)
		ret = map_rings(&ring, wanted->results);
	if (ret >= 0)
		ret = count_mapped(&ring, &helper, wanted);
	if (wanted->counters == 0)
		unmap_rings(&ring, wanted->results);
	unmap_rings(&helper, params->cq_entries);
	raw_call(NR_CLOSE, helper.fd, 0, 0, 0, 0, 0);
	return ret;
}

#endif
