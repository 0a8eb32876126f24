/*
 * Page content: which pages of a task hold something of its own, and copying them into a page image. Runs beside
 * JavaScript (no ptrace here). Bytes go from the task through a buffer that stays in the CPU's cache.
 *
 * A task's pages are found first, then copied by any number of workers at once. Each takes the next piece, reads it,
 * and sees which of its pages are to be stored; then, in the order of the pieces, it is told where they go in the
 * image, and writes them while others read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/types.h>
#include <sched.h>
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
	RANGE_INHERITED = 8,      /* the very pages of the parent, which it has stored */
};

struct area {
	uint64_t start, end, flags;
};

struct range {
	uint64_t start, end, flags;
};

/* Pages of a page image, and where they belong. */
struct placed {
	uint64_t start, end; /* addresses, or offsets in an object */
	uint64_t offset;     /* in the image */
};

/* lib/mm/page_copy.ts reads these while the copy runs. */
struct counters {
	uint64_t scanned;   /* pages that hold something */
	uint64_t written;   /* pages stored */
	uint64_t cancelled; /* set there: ckpt_fill_memory ends early */
};

struct ranges {
	struct range *list;
	uint64_t count, room;
};

static int64_t add_range(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t flags)
{
	struct range *last = ranges->count ? &ranges->list[ranges->count - 1] : NULL;

	if (last && last->end == start && last->flags == flags) {
		last->end = end;
		return 0;
	}
	if (ranges->count == ranges->room) {
		uint64_t room = ranges->room ? ranges->room * 2 : 1024;
		struct range *more = realloc(ranges->list, room * sizeof(*more));

		if (!more)
			return fail(CAUSE_OUT_OF_MEMORY, 0, 0, -ENOMEM);
		ranges->list = more;
		ranges->room = room;
	}
	ranges->list[ranges->count++] = (struct range){ start, end, flags };
	return 0;
}

static int is_zero_page(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;

	if (words[0] | words[PAGE / 16] | words[PAGE / 8 - 1])
		return 0;
	return !memcmp(page, page + 8, PAGE - 8);
}

static int64_t write_at(int fd, const uint8_t *from, uint64_t length, uint64_t offset)
{
	while (length) {
		ssize_t n = pwrite(fd, from, length, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(CAUSE_WRITE_IMAGE, 0, length, n ? -errno : -ENOSPC);
		from += n;
		offset += n;
		length -= n;
	}
	return 0;
}

/* Pages of a piece that are to be stored, as offsets in its buffer. */
struct run {
	uint64_t begin, end;
};

#define MOST_RUNS (BUFFER / PAGE)

/* Pages of zeros are left out where that is the default. Returns the number of runs; their bytes are added up. */
static int find_runs(const uint8_t *buffer, uint64_t length, uint64_t flags, struct run *runs, uint64_t *bytes)
{
	uint64_t at = 0;
	int count = 0;

	*bytes = 0;
	while (at < length) {
		uint64_t begin;

		while (at < length && flags & AREA_ZERO_IS_DEFAULT && is_zero_page(buffer + at))
			at += PAGE;
		begin = at;
		while (at < length && !(flags & AREA_ZERO_IS_DEFAULT && is_zero_page(buffer + at)))
			at += PAGE;
		if (begin == at)
			break;
		runs[count++] = (struct run){ begin, at };
		*bytes += at - begin;
	}
	return count;
}

static int64_t write_runs(int fd, const uint8_t *buffer, const struct run *runs, int count, uint64_t offset)
{
	int64_t ret = 0;

	for (int i = 0; i < count && !ret; i++) {
		ret = write_at(fd, buffer + runs[i].begin, runs[i].end - runs[i].begin, offset);
		offset += runs[i].end - runs[i].begin;
	}
	return ret;
}

static int64_t add_runs(struct ranges *stored, const struct run *runs, int count, uint64_t start, uint64_t flags)
{
	int64_t ret = 0;

	for (int i = 0; i < count && !ret; i++)
		ret = add_range(stored, start + runs[i].begin, start + runs[i].end, flags);
	return ret;
}

/* Page frame or place in swap; mapped here only, in swap, present (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_FRAME ((1UL << 55) - 1)
#define ENTRY_EXCLUSIVE (1UL << 56)
#define ENTRY_IDENTITY (ENTRY_FRAME | 3UL << 62)

/* Whether no other process has the pages; at most BUFFER bytes. */
static int is_exclusive(int pagemap, uint64_t start, uint64_t length)
{
	uint64_t entries[BUFFER / PAGE], all = ENTRY_EXCLUSIVE;

	if (pread(pagemap, entries, length / PAGE * 8, start / PAGE * 8) != (ssize_t)(length / PAGE * 8))
		return 0;
	for (uint64_t i = 0; i < length / PAGE; i++)
		all &= entries[i];
	return all != 0;
}

/*
 * process_vm_readv is fast, but gives the task pages of its own where it shares them after a fork (it pins them, and
 * gup_must_unshare in mm/internal.h says that only exclusive pages may be). /proc/PID/mem leaves them shared, and
 * reads memory without read permission, too (proc_pid_mem(5)).
 */
static int64_t read_task(int pid, int memory_fd, int pagemap_fd, uint8_t *buffer, uint64_t start, uint64_t length)
{
	struct iovec local = { buffer, length }, remote = { (void *)start, length };

	if (is_exclusive(pagemap_fd, start, length) &&
	    process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)length)
		return 0;
	for (uint64_t done = 0; done < length;) {
		ssize_t n = pread(memory_fd, buffer + done, length - done, start + done);

		if (n <= 0)
			return fail(CAUSE_READ_MEMORY, pid, start + done, n ? -errno : -EIO);
		done += n;
	}
	return 0;
}

/* Kernels before 6.7: /proc/PID/pagemap, 8 bytes a page (Documentation/admin-guide/mm/pagemap.rst). */
static int64_t find_by_pagemap(struct ranges *found, int pid, int pagemap, const struct area *area)
{
	uint64_t entries[512];
	uint64_t begin = 0;
	int64_t ret = 0;

	for (uint64_t at = area->start; at < area->end && !ret;) {
		uint64_t pages = (area->end - at) / PAGE < 512 ? (area->end - at) / PAGE : 512;

		if (pread(pagemap, entries, pages * 8, at / PAGE * 8) != (ssize_t)(pages * 8))
			return fail(CAUSE_PAGEMAP, pid, at, errno ? -errno : -EIO);
		for (uint64_t i = 0; i < pages && !ret; i++, at += PAGE) {
			/* bit 63 present, 62 swapped, 61 page of a file or shared memory */
			int ours = entries[i] >> 62 && !(entries[i] >> 61 & 1);

			if (ours && !begin)
				begin = at;
			if (!ours && begin) {
				ret = add_range(found, begin, at, area->flags);
				begin = 0;
			}
		}
	}
	if (begin && !ret)
		ret = add_range(found, begin, area->end, area->flags);
	return ret;
}

static int64_t scan(int pagemap, struct pm_scan_arg *arg)
{
	int64_t n = ioctl(pagemap, PAGEMAP_SCAN, arg);

	return n < 0 ? -errno : n;
}

static int64_t find_in_area(struct ranges *found, int pid, int pagemap, const struct area *area)
{
	struct page_region regions[512];
	uint64_t at = area->start;
	/* Kernels before 6.15 have no guard pages and say EINVAL. */
	uint64_t guard = IS_GUARD;

	if (area->flags & AREA_WHOLE)
		return add_range(found, area->start, area->end, 0);
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
			return find_by_pagemap(found, pid, pagemap, area);
		if (n < 0)
			return fail(CAUSE_PAGEMAP, pid, at, n);
		for (int64_t i = 0; i < n; i++) {
			uint64_t flags = regions[i].categories & guard ? RANGE_GUARD : area->flags;
			int64_t ret = add_range(found, regions[i].start, regions[i].end, flags);

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

/* A copy of a task's pages. */
struct task_copy {
	int pid, out_fd, memory_fd, pagemap_fd;
	/* What the parent has stored; its page image, or -1 when nothing can be cloned from it. */
	struct placed *parent;
	uint64_t parent_count;
	int parent_fd;
	struct counters *counters;
	struct ranges found, stored;
	char lock;
	/* The next piece to take: its range, where in it, and its number. */
	uint64_t range, at, number;
	uint64_t turn;   /* the number of the piece that is told next where it goes */
	uint64_t offset; /* where in the image that is */
	int64_t error;
};

/*
 * Finds the pages of `areas` (ascending, private memory of `pid`) that hold something of its own, to be appended to
 * `out_fd`, which is at `offset`. Stores the copy to be made; returns how many pages there are to read.
 */
EXPORT int64_t ckpt_find_task_pages(int32_t pid, const struct area *areas, uint64_t count, int32_t out_fd,
				    uint64_t offset, struct counters *counters, struct task_copy **out)
{
	struct task_copy *copy = calloc(1, sizeof(*copy));
	int64_t pages = 0, ret = 0, pagemap;

	if (!copy)
		return fail(CAUSE_OUT_OF_MEMORY, pid, 0, -ENOMEM);
	copy->pid = pid;
	copy->out_fd = out_fd;
	copy->offset = offset;
	copy->counters = counters;
	copy->parent_fd = -1;
	copy->memory_fd = open_proc(pid, "mem");
	pagemap = copy->pagemap_fd = open_proc(pid, "pagemap");
	if (copy->memory_fd < 0 || pagemap < 0)
		ret = fail(CAUSE_PAGEMAP, pid, 0, copy->memory_fd < 0 ? copy->memory_fd : pagemap);
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = find_in_area(&copy->found, pid, pagemap, &areas[i]);
	for (uint64_t i = 0; i < copy->found.count; i++)
		if (copy->found.list[i].flags != RANGE_GUARD)
			pages += (copy->found.list[i].end - copy->found.list[i].start) / PAGE;
	copy->at = copy->found.count ? copy->found.list[0].start : 0;
	copy->error = ret;
	*out = copy;
	return ret < 0 ? ret : pages;
}

/* Page map entries that are compared at once. */
#define ENTRIES 512

static int64_t read_entries(int pagemap, int pid, uint64_t at, uint64_t pages, uint64_t *entries)
{
	if (pread(pagemap, entries, pages * 8, at / PAGE * 8) == (ssize_t)(pages * 8))
		return 0;
	return fail(CAUSE_PAGEMAP, pid, at, errno ? -errno : -EIO);
}

struct comparison {
	int pid, parent_pid;
	int64_t pagemap, parent_pagemap;
};

/*
 * Marks the pages of one range that are the parent's. Neither of the two runs, but the kernel may move pages: a frame
 * counts only when the parent had it both before and after the child was seen to have it.
 */
static int64_t compare_range(struct ranges *out, const struct comparison *of, uint64_t start, uint64_t end,
			     uint64_t flags)
{
	uint64_t before[ENTRIES], ours[ENTRIES], after[ENTRIES];
	int64_t ret = 0;

	for (uint64_t at = start; at < end && !ret;) {
		uint64_t pages = (end - at) / PAGE < ENTRIES ? (end - at) / PAGE : ENTRIES;

		ret = read_entries(of->parent_pagemap, of->parent_pid, at, pages, before);
		if (!ret)
			ret = read_entries(of->pagemap, of->pid, at, pages, ours);
		if (!ret)
			ret = read_entries(of->parent_pagemap, of->parent_pid, at, pages, after);
		for (uint64_t i = 0; i < pages && !ret; i++, at += PAGE) {
			/* Without CAP_SYS_ADMIN all frames are 0. */
			int same = ours[i] & ENTRY_FRAME && !((ours[i] ^ before[i]) & ENTRY_IDENTITY) &&
				   !((ours[i] ^ after[i]) & ENTRY_IDENTITY);

			ret = add_range(out, at, at + PAGE, same ? flags | RANGE_INHERITED : flags);
		}
	}
	return ret;
}

/* Of what was found, marks what the parent has stored (ascending) and shares with the task. */
static int64_t compare_found(struct task_copy *copy, const struct comparison *of)
{
	struct ranges marked = { 0 };
	uint64_t k = 0;
	int64_t ret = 0;

	for (uint64_t i = 0; i < copy->found.count && !ret; i++) {
		const struct range *range = &copy->found.list[i];
		uint64_t at = range->start;

		while (k < copy->parent_count && copy->parent[k].end <= at)
			k++;
		for (uint64_t p = k; range->flags != RANGE_GUARD && !ret && p < copy->parent_count; p++) {
			uint64_t end = copy->parent[p].end < range->end ? copy->parent[p].end : range->end;

			if (copy->parent[p].start >= range->end)
				break;
			if (copy->parent[p].start > at) {
				ret = add_range(&marked, at, copy->parent[p].start, range->flags);
				at = copy->parent[p].start;
			}
			if (!ret)
				ret = compare_range(&marked, of, at, end, range->flags);
			at = end;
		}
		if (at < range->end && !ret)
			ret = add_range(&marked, at, range->end, range->flags);
	}
	if (ret) {
		free(marked.list);
		return ret;
	}
	free(copy->found.list);
	copy->found = marked;
	return 0;
}

/*
 * Finds the pages that a task shares with its parent, which are those of the parent at the same address: neither of
 * them has written there since the fork. `stored` is what is in the parent's page image `parent_fd`, ascending; from
 * there long ranges are cloned where the file system can. Before any worker begins.
 */
EXPORT int64_t ckpt_find_inherited(struct task_copy *copy, int32_t parent_pid, int32_t parent_fd,
				   const struct placed *stored, uint64_t count)
{
	struct comparison of = { .pid = copy->pid, .parent_pid = parent_pid, .pagemap = copy->pagemap_fd };
	int64_t ret = 0;

	copy->parent = malloc(count * sizeof(*stored) + 1);
	if (!copy->parent)
		return copy->error = fail(CAUSE_OUT_OF_MEMORY, copy->pid, 0, -ENOMEM);
	memcpy(copy->parent, stored, count * sizeof(*stored));
	copy->parent_count = count;
	copy->parent_fd = parent_fd;
	of.parent_pagemap = open_proc(parent_pid, "pagemap");
	if (of.parent_pagemap < 0) {
		ret = fail(CAUSE_PAGEMAP, parent_pid, 0, of.parent_pagemap);
	} else {
		ret = compare_found(copy, &of);
		close(of.parent_pagemap);
	}
	copy->at = copy->found.count ? copy->found.list[0].start : 0;
	if (ret)
		copy->error = ret;
	return ret;
}

struct piece {
	uint64_t start, length, flags, number;
	int cloned;
};

/* Shorter ranges are written: to clone costs a write of the parent's pages to disk, and a part of a file each. */
#define LEAST_TO_CLONE BUFFER

static int is_to_clone(const struct task_copy *copy, uint64_t length, uint64_t flags)
{
	return flags & RANGE_INHERITED && length >= LEAST_TO_CLONE &&
	       __atomic_load_n(&copy->parent_fd, __ATOMIC_RELAXED) >= 0;
}

/* Takes the next piece; returns 0 when there is none. */
static int take_piece(struct task_copy *copy, struct piece *piece)
{
	int found = 0;

	while (__atomic_test_and_set(&copy->lock, __ATOMIC_ACQUIRE))
		sched_yield();
	if (copy->range < copy->found.count && !copy->error) {
		const struct range *range = &copy->found.list[copy->range];
		uint64_t left = range->end - copy->at;

		piece->start = copy->at;
		piece->flags = range->flags;
		piece->cloned = is_to_clone(copy, left, range->flags);
		piece->length = range->flags == RANGE_GUARD || piece->cloned || left < BUFFER ? left : BUFFER;
		piece->number = copy->number++;
		copy->at += piece->length;
		if (copy->at == range->end && ++copy->range < copy->found.count)
			copy->at = copy->found.list[copy->range].start;
		found = 1;
	}
	__atomic_clear(&copy->lock, __ATOMIC_RELEASE);
	return found;
}

/* Where the parent's page image holds a page that is in it. */
static uint64_t place_in_parent(const struct task_copy *copy, uint64_t address)
{
	uint64_t low = 0, high = copy->parent_count;

	while (high - low > 1) {
		uint64_t middle = (low + high) / 2;

		if (copy->parent[middle].start <= address)
			low = middle;
		else
			high = middle;
	}
	return copy->parent[low].offset + address - copy->parent[low].start;
}

/*
 * Lets a part of the page image be the same blocks on disk as in the parent's (ioctl_ficlonerange(2)): pages that
 * follow each other in memory do so there, too. Where that does not work, the bytes are written.
 */
static int64_t clone_piece(struct task_copy *copy, const struct piece *piece, uint8_t *buffer, uint64_t offset)
{
	struct file_clone_range clone = {
		.src_fd = copy->parent_fd,
		.src_offset = place_in_parent(copy, piece->start),
		.src_length = piece->length,
		.dest_offset = offset,
	};
	int64_t ret = 0;

	if (clone.src_fd >= 0 && !ioctl(copy->out_fd, FICLONERANGE, &clone))
		return 0;
	__atomic_store_n(&copy->parent_fd, -1, __ATOMIC_RELAXED);
	for (uint64_t done = 0; done < piece->length && !ret && !copy->error; done += BUFFER) {
		uint64_t length = piece->length - done < BUFFER ? piece->length - done : BUFFER;

		ret = read_task(copy->pid, copy->memory_fd, copy->pagemap_fd, buffer, piece->start + done, length);
		if (!ret)
			ret = write_at(copy->out_fd, buffer, length, offset + done);
	}
	return ret;
}

static int64_t copy_piece(struct task_copy *copy, const struct piece *piece, uint8_t *buffer)
{
	struct run runs[MOST_RUNS] = { { 0, piece->length } };
	uint64_t bytes = 0, offset = 0;
	int64_t ret = 0;
	int count = 0;

	if (piece->cloned) {
		count = 1;
		bytes = piece->length;
	} else if (piece->flags != RANGE_GUARD) {
		ret = read_task(copy->pid, copy->memory_fd, copy->pagemap_fd, buffer, piece->start, piece->length);
		if (!ret)
			count = find_runs(buffer, piece->length, piece->flags, runs, &bytes);
	}
	while (__atomic_load_n(&copy->turn, __ATOMIC_ACQUIRE) != piece->number)
		sched_yield();
	if (!ret)
		ret = piece->flags == RANGE_GUARD ?
			add_range(&copy->stored, piece->start, piece->start + piece->length, RANGE_GUARD) :
			add_runs(&copy->stored, runs, count, piece->start, piece->flags & RANGE_INHERITED);
	offset = copy->offset;
	copy->offset += bytes;
	__atomic_store_n(&copy->turn, piece->number + 1, __ATOMIC_RELEASE);
	if (!ret)
		ret = piece->cloned ? clone_piece(copy, piece, buffer, offset) :
				      write_runs(copy->out_fd, buffer, runs, count, offset);
	if (piece->flags != RANGE_GUARD)
		__atomic_add_fetch(&copy->counters->scanned, piece->length / PAGE, __ATOMIC_RELAXED);
	__atomic_add_fetch(&copy->counters->written, bytes / PAGE, __ATOMIC_RELAXED);
	return ret;
}

/* Copies pieces until none is left. May run several times at once for one copy. */
EXPORT int64_t ckpt_copy_pieces(struct task_copy *copy)
{
	uint8_t *buffer = aligned_alloc(PAGE, BUFFER);
	struct piece piece;
	int64_t ret = buffer ? 0 : fail(CAUSE_OUT_OF_MEMORY, copy->pid, 0, -ENOMEM);

	while (!ret && take_piece(copy, &piece)) {
		ret = copy_piece(copy, &piece, buffer);
		if (ret)
			copy->error = ret;
	}
	free(buffer);
	return ret;
}

/* A copy that is to be made from beginning to end; `parent_pid` 0: without looking for what it shares. */
struct copy_job {
	struct task_copy *copy;
	int32_t parent_pid, parent_fd;
	const struct placed *stored;
	uint64_t count;
};

/* Makes copies one after the other, each as ckpt_find_inherited and ckpt_copy_pieces do; errors are the copies'. */
EXPORT int64_t ckpt_copy_tasks(const struct copy_job *jobs, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		const struct copy_job *job = &jobs[i];

		if (job->parent_pid &&
		    ckpt_find_inherited(job->copy, job->parent_pid, job->parent_fd, job->stored, job->count) < 0)
			continue;
		ckpt_copy_pieces(job->copy);
	}
	return 0;
}

/* Lets the workers of a copy stop after the pieces they are at. */
EXPORT void ckpt_cancel_copy(struct task_copy *copy)
{
	copy->error = -ECANCELED;
}

/*
 * Ends a copy when no worker is at it any more. Stores the list of ranges, in order: stored ones (flags 0, or
 * RANGE_INHERITED) follow each other in the file; RANGE_GUARD ones have no content. Returns their number; the list is given back with
 * ckpt_free.
 */
EXPORT int64_t ckpt_end_task_copy(struct task_copy *copy, struct range **out)
{
	int64_t ret = copy->error ? copy->error : (int64_t)copy->stored.count;

	if (copy->memory_fd >= 0)
		close(copy->memory_fd);
	if (copy->pagemap_fd >= 0)
		close(copy->pagemap_fd);
	if (ret < 0)
		free(copy->stored.list);
	else
		*out = copy->stored.list;
	free(copy->found.list);
	free(copy->parent);
	free(copy);
	return ret;
}

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

EXPORT void ckpt_free(void *list)
{
	free(list);
}
