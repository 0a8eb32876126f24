/* Pages that a task shares with its parent since a fork: neither of them has written there. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "pages.h"

/* Page frame or place in swap; in swap, present (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_FRAME ((1UL << 55) - 1)
#define ENTRY_IDENTITY (ENTRY_FRAME | 3UL << 62)

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
static int64_t compare_found(struct ranges *found, const struct comparison *of, const struct placed *stored,
			     uint64_t count)
{
	struct ranges marked = { 0 };
	uint64_t k = 0;
	int64_t ret = 0;

	for (uint64_t i = 0; i < found->count && !ret; i++) {
		const struct range *range = &found->list[i];
		uint64_t at = range->start;

		while (k < count && stored[k].end <= at)
			k++;
		for (uint64_t p = k; range->flags != RANGE_GUARD && !ret && p < count; p++) {
			uint64_t end = stored[p].end < range->end ? stored[p].end : range->end;

			if (stored[p].start >= range->end)
				break;
			if (stored[p].start > at) {
				ret = add_range(&marked, at, stored[p].start, range->flags);
				at = stored[p].start;
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
	free(found->list);
	*found = marked;
	return 0;
}

int64_t mark_inherited(struct ranges *found, int pid, int pagemap, int parent_pid, const struct placed *stored,
		       uint64_t count)
{
	struct comparison of = { .pid = pid, .parent_pid = parent_pid, .pagemap = pagemap };
	int64_t ret;

	of.parent_pagemap = open_proc(parent_pid, "pagemap");
	if (of.parent_pagemap < 0)
		return fail(CAUSE_PAGEMAP, parent_pid, 0, of.parent_pagemap);
	ret = compare_found(found, &of, stored, count);
	close(of.parent_pagemap);
	return ret;
}
