/* Finds the pages of a task that hold something of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "pages.h"

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

int64_t open_proc(int pid, const char *name)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
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

int64_t find_in_area(struct ranges *found, int pid, int pagemap, const struct area *area)
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
