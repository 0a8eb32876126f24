/*
 * Copies the pages of a task into a page image. Runs beside JavaScript (no ptrace here). Bytes go from the task through
 * a buffer that stays in the CPU's cache.
 *
 * A task's pages are found first, then copied by any number of workers at once. Each takes the next piece, reads it,
 * and sees which of its pages are to be stored; then, in the order of the pieces, it is told where they go in the
 * image, and writes them while others read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "pages.h"

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

/*
 * Finds the pages that a task shares with its parent, which are those of the parent at the same address: neither of
 * them has written there since the fork. `stored` is what is in the parent's page image `parent_fd`, ascending; from
 * there long ranges are cloned where the file system can. Before any worker begins.
 */
EXPORT int64_t ckpt_find_inherited(struct task_copy *copy, int32_t parent_pid, int32_t parent_fd,
				   const struct placed *stored, uint64_t count)
{
	int64_t ret;

	copy->parent = malloc(count * sizeof(*stored) + 1);
	if (!copy->parent)
		return copy->error = fail(CAUSE_OUT_OF_MEMORY, copy->pid, 0, -ENOMEM);
	memcpy(copy->parent, stored, count * sizeof(*stored));
	copy->parent_count = count;
	copy->parent_fd = parent_fd;
	ret = mark_inherited(&copy->found, copy->pid, copy->pagemap_fd, parent_pid, copy->parent, count);
	copy->at = copy->found.count ? copy->found.list[0].start : 0;
	if (ret)
		copy->error = ret;
	return ret;
}

/* Mapped here only (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_EXCLUSIVE (1UL << 56)

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
