/*
 * Page content: which pages of a task hold something of its own, and copying them into a page image. Runs beside
 * JavaScript (no ptrace here). Bytes go from the task through one buffer that stays in the CPU's cache.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "ckpt.h"

#define PAGE 4096UL
#define BUFFER (256 * 1024UL)

/* linux/fs.h of 6.7 and later; the build machine's headers may be older. */
struct page_region {
	uint64_t start, end, categories;
};

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define IS_FILE (1 << 2)
#define IS_PRESENT (1 << 3)
#define IS_SWAPPED (1 << 4)
#define IS_PFNZERO (1 << 5)
#define IS_GUARD (1 << 8)

/* Flags of an area to look at, and of a range found. */
enum {
	AREA_ZERO_IS_DEFAULT = 1, /* a page of zeros need not be stored: anonymous memory */
	RANGE_GUARD = 2,          /* MADV_GUARD_INSTALL: no content */
	AREA_WHOLE = 4,           /* every page, whatever the page map says: the vdso */
};

struct area {
	uint64_t start, end, flags;
};

struct range {
	uint64_t start, end, flags;
};

/* lib/mm/page_copy.ts reads these while the copy runs. */
struct counters {
	uint64_t scanned; /* pages that hold something */
	uint64_t written; /* pages stored */
};

struct page_copy {
	int pid, out_fd, memory_fd;
	struct counters *counters;
	struct range *ranges;
	uint64_t count, room;
	uint8_t *buffer;
};

static int64_t add_range(struct page_copy *copy, uint64_t start, uint64_t end, uint64_t flags)
{
	struct range *last = copy->count ? &copy->ranges[copy->count - 1] : NULL;

	if (last && last->end == start && last->flags == flags) {
		last->end = end;
		return 0;
	}
	if (copy->count == copy->room) {
		uint64_t room = copy->room ? copy->room * 2 : 1024;
		struct range *more = realloc(copy->ranges, room * sizeof(*more));

		if (!more)
			return fail(CAUSE_OUT_OF_MEMORY, copy->pid, 0, -ENOMEM);
		copy->ranges = more;
		copy->room = room;
	}
	copy->ranges[copy->count++] = (struct range){ start, end, flags };
	return 0;
}

static int is_zero_page(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;

	if (words[0] | words[PAGE / 16] | words[PAGE / 8 - 1])
		return 0;
	return !memcmp(page, page + 8, PAGE - 8);
}

static int64_t write_all(struct page_copy *copy, const uint8_t *from, uint64_t length)
{
	while (length) {
		ssize_t n = write(copy->out_fd, from, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(CAUSE_WRITE_IMAGE, copy->pid, length, n ? -errno : -ENOSPC);
		from += n;
		length -= n;
	}
	return 0;
}

/* Stores what is in the buffer, which came from `start`; pages of zeros are left out where that is the default. */
static int64_t store(struct page_copy *copy, uint64_t start, uint64_t length, uint64_t flags)
{
	uint64_t at = 0;

	while (at < length) {
		uint64_t begin;
		int64_t ret;

		while (at < length && flags & AREA_ZERO_IS_DEFAULT && is_zero_page(copy->buffer + at))
			at += PAGE;
		begin = at;
		while (at < length && !(flags & AREA_ZERO_IS_DEFAULT && is_zero_page(copy->buffer + at)))
			at += PAGE;
		if (begin == at)
			break;
		ret = write_all(copy, copy->buffer + begin, at - begin);
		if (!ret)
			ret = add_range(copy, start + begin, start + at, 0);
		if (ret)
			return ret;
		__atomic_add_fetch(&copy->counters->written, (at - begin) / PAGE, __ATOMIC_RELAXED);
	}
	return 0;
}

static int64_t read_task(struct page_copy *copy, uint64_t start, uint64_t length)
{
	struct iovec local = { copy->buffer, length }, remote = { (void *)start, length };

	if (process_vm_readv(copy->pid, &local, 1, &remote, 1, 0) == (ssize_t)length)
		return 0;
	/* Memory without read permission: /proc/PID/mem may read it all the same (proc_pid_mem(5)). */
	for (uint64_t done = 0; done < length;) {
		ssize_t n = pread(copy->memory_fd, copy->buffer + done, length - done, start + done);

		if (n <= 0)
			return fail(CAUSE_READ_MEMORY, copy->pid, start + done, n ? -errno : -EIO);
		done += n;
	}
	return 0;
}

static int64_t copy_range(struct page_copy *copy, uint64_t start, uint64_t end, uint64_t flags)
{
	__atomic_add_fetch(&copy->counters->scanned, (end - start) / PAGE, __ATOMIC_RELAXED);
	while (start < end) {
		uint64_t length = end - start < BUFFER ? end - start : BUFFER;
		int64_t ret = read_task(copy, start, length);

		if (!ret)
			ret = store(copy, start, length, flags);
		if (ret)
			return ret;
		start += length;
	}
	return 0;
}

/* Kernels before 6.7: /proc/PID/pagemap, 8 bytes a page (Documentation/admin-guide/mm/pagemap.rst). */
static int64_t copy_area_by_pagemap(struct page_copy *copy, int pagemap, const struct area *area)
{
	uint64_t entries[512];
	uint64_t begin = 0;
	int64_t ret = 0;

	for (uint64_t at = area->start; at < area->end && !ret;) {
		uint64_t pages = (area->end - at) / PAGE < 512 ? (area->end - at) / PAGE : 512;

		if (pread(pagemap, entries, pages * 8, at / PAGE * 8) != (ssize_t)(pages * 8))
			return fail(CAUSE_PAGEMAP, copy->pid, at, errno ? -errno : -EIO);
		for (uint64_t i = 0; i < pages && !ret; i++, at += PAGE) {
			/* bit 63 present, 62 swapped, 61 page of a file or shared memory */
			int ours = entries[i] >> 62 && !(entries[i] >> 61 & 1);

			if (ours && !begin)
				begin = at;
			if (!ours && begin) {
				ret = copy_range(copy, begin, at, area->flags);
				begin = 0;
			}
		}
	}
	if (begin && !ret)
		ret = copy_range(copy, begin, area->end, area->flags);
	return ret;
}

static int64_t scan(int pagemap, struct pm_scan_arg *arg)
{
	int64_t n = ioctl(pagemap, PAGEMAP_SCAN, arg);

	return n < 0 ? -errno : n;
}

static int64_t copy_area(struct page_copy *copy, int pagemap, const struct area *area)
{
	struct page_region regions[512];
	uint64_t at = area->start;
	/* Kernels before 6.15 have no guard pages and say EINVAL. */
	uint64_t guard = IS_GUARD;

	if (area->flags & AREA_WHOLE)
		return copy_range(copy, area->start, area->end, 0);
	while (at < area->end) {
		struct pm_scan_arg arg = {
			.size = sizeof(arg), .start = at, .end = area->end,
			.vec = (uint64_t)regions, .vec_len = 512,
			/* pages that are there or swapped, and neither the zero page nor a page of the file */
			.category_inverted = IS_PFNZERO | IS_FILE,
			.category_mask = IS_PFNZERO | IS_FILE,
			.category_anyof_mask = IS_PRESENT | IS_SWAPPED,
			.return_mask = guard ? guard : IS_PRESENT,
		};

		int64_t n = scan(pagemap, &arg);

		if (n == -EINVAL && guard) {
			guard = 0;
			arg.return_mask = IS_PRESENT;
			n = scan(pagemap, &arg);
		}
		if (n == -ENOTTY)
			return copy_area_by_pagemap(copy, pagemap, area);
		if (n < 0)
			return fail(CAUSE_PAGEMAP, copy->pid, at, n);
		for (int64_t i = 0; i < n; i++) {
			int64_t ret = regions[i].categories & guard ?
				add_range(copy, regions[i].start, regions[i].end, RANGE_GUARD) :
				copy_range(copy, regions[i].start, regions[i].end, area->flags);

			if (ret)
				return ret;
		}
		if (n < 512)
			break;
		/* walk_end may lag behind the last region although the walk went further. */
		at = arg.walk_end > regions[n - 1].end ? arg.walk_end : regions[n - 1].end;
	}
	return 0;
}

static int64_t open_proc(int pid, const char *name)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int64_t finish(struct page_copy *copy, int64_t ret, struct range **out)
{
	free(copy->buffer);
	if (ret < 0) {
		free(copy->ranges);
		return ret;
	}
	*out = copy->ranges;
	return copy->count;
}

static int64_t begin(struct page_copy *copy)
{
	copy->buffer = aligned_alloc(PAGE, BUFFER);
	return copy->buffer ? 0 : fail(CAUSE_OUT_OF_MEMORY, copy->pid, 0, -ENOMEM);
}

/*
 * Appends the pages of `areas` (ascending, private memory of `pid`) that hold something of its own to `out_fd`.
 * Stores a list of ranges, in order: stored ones (flags 0) follow each other in the file; RANGE_GUARD ones have no
 * content. Returns their number; the list is given back with ckpt_free.
 */
EXPORT int64_t ckpt_copy_task_pages(int32_t pid, const struct area *areas, uint64_t count, int32_t out_fd,
				    struct counters *counters, struct range **out)
{
	struct page_copy copy = { .pid = pid, .out_fd = out_fd, .counters = counters };
	int64_t ret = begin(&copy), pagemap = -1;

	if (!ret) {
		copy.memory_fd = open_proc(pid, "mem");
		pagemap = open_proc(pid, "pagemap");
		if (copy.memory_fd < 0 || pagemap < 0)
			ret = fail(CAUSE_PAGEMAP, pid, 0, copy.memory_fd < 0 ? copy.memory_fd : pagemap);
		for (uint64_t i = 0; i < count && !ret; i++)
			ret = copy_area(&copy, pagemap, &areas[i]);
		if (pagemap >= 0)
			close(pagemap);
		if (copy.memory_fd >= 0)
			close(copy.memory_fd);
	}
	return finish(&copy, ret, out);
}

/*
 * The same for an object of shared memory, read through a descriptor: its data segments (lseek(2), SEEK_DATA) as
 * ranges of offsets.
 */
EXPORT int64_t ckpt_copy_object_pages(int32_t in_fd, uint64_t size, int32_t out_fd, struct counters *counters,
				      struct range **out)
{
	struct page_copy copy = { .out_fd = out_fd, .counters = counters };
	int64_t ret = begin(&copy);
	off_t data = 0;

	while (!ret && (data = lseek(in_fd, data, SEEK_DATA)) >= 0 && (uint64_t)data < size) {
		off_t hole = lseek(in_fd, data, SEEK_HOLE);

		if (hole < 0) {
			ret = fail(CAUSE_READ_CONTENT, 0, data, -errno);
			break;
		}
		data &= ~(PAGE - 1);
		while (data < hole && !ret) {
			uint64_t length = (uint64_t)(hole - data) < BUFFER ? (uint64_t)(hole - data) : BUFFER;
			ssize_t n = pread(in_fd, copy.buffer, length, data);

			if (n <= 0) {
				ret = fail(CAUSE_READ_CONTENT, 0, data, n ? -errno : -EIO);
				break;
			}
			length = (n + PAGE - 1) & ~(PAGE - 1);
			memset(copy.buffer + n, 0, length - n);
			__atomic_add_fetch(&counters->scanned, length / PAGE, __ATOMIC_RELAXED);
			ret = store(&copy, data, length, AREA_ZERO_IS_DEFAULT);
			data += length;
		}
	}
	if (!ret && data < 0 && errno != ENXIO)
		ret = fail(CAUSE_READ_CONTENT, 0, 0, -errno);
	return finish(&copy, ret, out);
}

EXPORT void ckpt_free(void *list)
{
	free(list);
}
