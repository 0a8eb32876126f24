/* Reads stored pages from a page image into memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
#include "pages.h"

#define FILLED_AT_ONCE (1024 * 1024UL)

/* Reads stored pages from the page image `fd` into memory of ckpt's own. */
EXPORT int64_t ckpt_fill_memory(int32_t fd, uint8_t *memory, const struct placed *parts, uint64_t count,
				struct counters *counters)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t offset = parts[i].offset, at = parts[i].start;

		while (at < parts[i].end) {
			uint64_t left = parts[i].end - at;
			ssize_t n = pread(fd, memory + at, left < FILLED_AT_ONCE ? left : FILLED_AT_ONCE, offset);

			if (__atomic_load_n(&counters->cancelled, __ATOMIC_RELAXED))
				return -ECANCELED;
			if (n <= 0)
				return fail(CAUSE_READ_IMAGE, 0, offset, n ? -errno : -ENODATA);
			at += n;
			offset += n;
			__atomic_add_fetch(&counters->written, n / PAGE, __ATOMIC_RELAXED);
		}
	}
	return 0;
}

/*
 * Reads stored pages from the page image `fd` into the memory of a task, which must be mapped writable: beside the task,
 * which may fill other parts itself meanwhile.
 */
EXPORT int64_t ckpt_fill_task(int32_t pid, int32_t fd, const struct placed *parts, uint64_t count,
			      struct counters *counters)
{
	uint8_t *buffer = aligned_alloc(PAGE, BUFFER);
	int64_t ret = 0;

	if (!buffer)
		return fail(CAUSE_OUT_OF_MEMORY, 0, 0, -ENOMEM);
	for (uint64_t i = 0; i < count && !ret; i++) {
		uint64_t offset = parts[i].offset, at = parts[i].start;

		while (at < parts[i].end && !ret) {
			uint64_t left = parts[i].end - at;
			ssize_t n = pread(fd, buffer, left < BUFFER ? left : BUFFER, offset);
			struct iovec local = { .iov_base = buffer, .iov_len = n < 0 ? 0 : n };
			struct iovec remote = { .iov_base = (void *)at, .iov_len = local.iov_len };

			if (__atomic_load_n(&counters->cancelled, __ATOMIC_RELAXED))
				ret = -ECANCELED;
			else if (n <= 0)
				ret = fail(CAUSE_READ_IMAGE, 0, offset, n ? -errno : -ENODATA);
			else if (errno = 0, process_vm_writev(pid, &local, 1, &remote, 1, 0) != n)
				ret = fail(CAUSE_WRITE_MEMORY, pid, at, errno ? -errno : -EFAULT);
			at += n;
			offset += n;
		}
	}
	free(buffer);
	return ret;
}
