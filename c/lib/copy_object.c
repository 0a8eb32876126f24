/* Copies the content of an object of shared memory, as of a memfd, into a page image. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pages.h"

/* The rest of the last page of an object: behind the end of the file, but in the memory of those that map it. */
static int64_t read_rest(int fd, off_t end, uint8_t *to, uint64_t length)
{
	off_t page = end & ~(PAGE - 1);
	uint8_t *mapped = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, page);

	if (mapped == MAP_FAILED)
		return fail(CAUSE_READ_CONTENT, 0, page, -errno);
	memcpy(to, mapped + (end - page), length);
	munmap(mapped, PAGE);
	return 0;
}

/*
 * Appends the content of an object of shared memory, read through a descriptor, to `out_fd`: its data segments
 * (lseek(2), SEEK_DATA) as ranges of offsets. Stores a list as ckpt_end_task_copy does.
 */
EXPORT int64_t ckpt_copy_object_pages(int32_t in_fd, uint64_t size, int32_t out_fd, struct counters *counters,
				      struct range **out)
{
	struct ranges stored = { 0 };
	struct run runs[MOST_RUNS];
	uint64_t offset = 0, room = size < BUFFER ? (size + PAGE) & ~(PAGE - 1) : BUFFER;
	uint8_t *buffer = aligned_alloc(PAGE, room);
	int64_t ret = buffer ? 0 : fail(CAUSE_OUT_OF_MEMORY, 0, 0, -ENOMEM);
	off_t data = 0;

	while (!ret && (data = lseek(in_fd, data, SEEK_DATA)) >= 0 && (uint64_t)data < size) {
		off_t hole = lseek(in_fd, data, SEEK_HOLE);

		if (hole < 0) {
			ret = fail(CAUSE_READ_CONTENT, 0, data, -errno);
			break;
		}
		data &= ~(PAGE - 1);
		while (data < hole && !ret) {
			uint64_t length = (uint64_t)(hole - data) < room ? (uint64_t)(hole - data) : room;
			ssize_t n = pread(in_fd, buffer, length, data);
			uint64_t bytes;
			int count;

			if (n <= 0) {
				ret = fail(CAUSE_READ_CONTENT, 0, data, n ? -errno : -EIO);
				break;
			}
			length = (n + PAGE - 1) & ~(PAGE - 1);
			if (length > (uint64_t)n)
				ret = read_rest(in_fd, data + n, buffer + n, length - n);
			count = find_runs(buffer, length, AREA_ZERO_IS_DEFAULT, runs, &bytes);
			if (!ret)
				ret = add_runs(&stored, runs, count, data, 0);
			if (!ret)
				ret = write_runs(out_fd, buffer, runs, count, offset);
			offset += bytes;
			__atomic_add_fetch(&counters->scanned, length / PAGE, __ATOMIC_RELAXED);
			__atomic_add_fetch(&counters->written, bytes / PAGE, __ATOMIC_RELAXED);
			data += length;
		}
	}
	if (!ret && data < 0 && errno != ENXIO)
		ret = fail(CAUSE_READ_CONTENT, 0, 0, -errno);
	free(buffer);
	if (ret < 0) {
		free(stored.list);
		return ret;
	}
	*out = stored.list;
	return stored.count;
}
