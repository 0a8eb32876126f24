/* Makes an io_uring that has taken as many requests and given as many results as another one. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../agent/count_ring.h"
#include "ckpt.h"

/* The kernel wants to see another ring, and does nothing with it but for threads of its own (io_sq_offload_create). */
static int64_t any_ring(void)
{
	struct io_uring_params params = { 0 };

	return raw_call(SYS_io_uring_setup, 1, (uint64_t)&params, 0, 0, 0, 0);
}

/*
 * `flags`: IORING_SETUP_*; `requests` and `results`: how many the two rings hold; `taken` and `given`: what the kernel
 * has counted. Returns a descriptor; -errno.
 */
EXPORT int64_t ckpt_make_ring(uint32_t flags, uint32_t requests, uint32_t results, uint32_t taken, uint32_t given)
{
	struct io_uring_params params = { .flags = flags | IORING_SETUP_CQSIZE, .cq_entries = results };
	struct ring_count count = { .flags = flags, .requests = requests, .results = results, .taken = taken,
				    .given = given };
	int64_t fd, ret;

	if (flags & IORING_SETUP_ATTACH_WQ) {
		ret = any_ring();
		if (ret < 0)
			return ret;
		params.wq_fd = ret;
	}
	fd = raw_call(SYS_io_uring_setup, requests, (uint64_t)&params, 0, 0, 0, 0);
	if (flags & IORING_SETUP_ATTACH_WQ)
		close(params.wq_fd);
	if (fd < 0)
		return fd;
	ret = count_ring(fd, &count);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}
