/* The data of a file that has holes: where they are, and copying them piece by piece, in one call from outside. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "ckpt.h"

/* Bytes of a page of a file on hugetlbfs; 0: it is elsewhere. */
static uint64_t huge_page(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : 0;
}

/* hugetlbfs has no holes to tell of: pages of zeros are such. Returns as ckpt_data_ranges does. */
static int64_t huge_data_ranges(int fd, uint64_t size, uint64_t page, uint64_t *out, uint64_t room)
{
	uint8_t *buffer = malloc(page);
	uint64_t count = 0;
	int64_t ret = buffer ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < size && count < room && ret >= 0; at += page) {
		ssize_t n = pread(fd, buffer, page, at);

		if (n < 0)
			ret = -errno;
		if (n <= 0 || (buffer[0] == 0 && !memcmp(buffer, buffer + 1, n - 1)))
			continue;
		out[2 * count] = at;
		out[2 * count + 1] = n;
		count++;
	}
	free(buffer);
	return ret < 0 ? ret : (int64_t)count;
}

/* Stores offset and length of the parts of a file that are no holes (lseek(2)), up to `size`. Returns how many; -errno. */
EXPORT int64_t ckpt_data_ranges(int fd, uint64_t size, uint64_t *out, uint64_t room)
{
	uint64_t count = 0, page = huge_page(fd);
	off_t at = 0;

	if (page)
		return huge_data_ranges(fd, size, page, out, room);
	while (at < (off_t)size && count < room) {
		off_t start = lseek(fd, at, SEEK_DATA), end;

		if (start < 0)
			return errno == ENXIO ? (int64_t)count : -errno;
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return -errno;
		if (end > (off_t)size)
			end = size;
		if (start >= (off_t)size || end <= start)
			break;
		out[2 * count] = start;
		out[2 * count + 1] = end - start;
		count++;
		at = end;
	}
	return count;
}

/* lib/ghost/content.ts has the same. */
struct range {
	uint64_t from;
	uint64_t to;
	uint64_t length;
	uint64_t head;	      /* address of bytes that are written before it, */
	uint64_t head_length; /* so many */
};

/* Shared with JavaScript, which goes on meanwhile. */
struct copy_progress {
	volatile uint64_t done;	  /* bytes */
	volatile uint64_t cancel; /* from JavaScript */
};

#define PIECE (256 << 10)

/* hugetlbfs knows no write(2). The file is as long already. Returns as pwrite(2), within one page; the error in errno. */
static ssize_t write_huge(int fd, const uint8_t *bytes, uint64_t length, uint64_t at)
{
	uint64_t page = huge_page(fd), inside = page ? at % page : 0;
	uint8_t *memory;

	if (!page) {
		errno = EINVAL;
		return -1;
	}
	/* Where there are too few pages, this fails, and not the access. */
	memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at - inside);
	if (memory == MAP_FAILED)
		return -1;
	if (length > page - inside)
		length = page - inside;
	memcpy(memory + inside, bytes, length);
	munmap(memory, page);
	return length;
}

static int64_t write_all(int fd, const uint8_t *bytes, uint64_t length, uint64_t at)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL)
			n = write_huge(fd, bytes, length, at);
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		bytes += n;
		at += n;
		length -= n;
	}
	return 0;
}

/* Inside the kernel: fewer copies, and file systems may share blocks. Returns bytes; -errno, also where that is not possible. */
static int64_t copy_inside(int from, int to, const struct range *range, uint64_t done)
{
	loff_t source = range->from + done, target = range->to + done;
	ssize_t n = copy_file_range(from, &source, to, &target, range->length - done, 0);

	return n < 0 ? -errno : n;
}

static int64_t copy_piece(int from, int to, const struct range *range, uint64_t done, uint8_t *buffer)
{
	uint64_t length = range->length - done;
	ssize_t n;

	do
		n = pread(from, buffer, length < PIECE ? length : PIECE, range->from + done);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		int64_t ret = write_all(to, buffer, n, range->to + done);

		return ret < 0 ? ret : n;
	}
	return n < 0 ? -errno : 0;
}

/*
 * Copies ranges of one file to another, each with its head before it. Returns 0; -ECANCELED; -ENODATA when the file ends
 * too early; -errno.
 */
EXPORT int64_t ckpt_copy_ranges(int from, int to, const struct range *ranges, uint64_t count,
				struct copy_progress *progress)
{
	uint8_t *buffer = malloc(PIECE);
	int64_t ret = buffer ? 0 : -ENOMEM;
	int inside = 1; /* until it turns out that it cannot be */

	for (uint64_t i = 0; i < count && ret >= 0; i++) {
		const struct range *range = &ranges[i];

		ret = write_all(to, (const uint8_t *)range->head, range->head_length, range->to - range->head_length);
		for (uint64_t done = 0; done < range->length && ret >= 0; done += ret, progress->done += ret) {
			if (progress->cancel) {
				ret = -ECANCELED;
				break;
			}
			ret = inside ? copy_inside(from, to, range, done) : copy_piece(from, to, range, done, buffer);
			if (inside && (ret == -EXDEV || ret == -EINVAL || ret == -EOPNOTSUPP)) {
				inside = 0;
				ret = copy_piece(from, to, range, done, buffer);
			}
			if (ret == 0)
				ret = -ENODATA;
			if (ret < 0)
				break;
		}
	}
	free(buffer);
	return ret < 0 ? ret : 0;
}
