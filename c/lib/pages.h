/* Page content: what the files that find, copy and fill pages have in common. */
#ifndef PAGES_H
#define PAGES_H

#include "ckpt.h"

#define PAGE 4096UL
/* Bytes copied at once: they stay in the CPU's cache. */
#define BUFFER (256 * 1024UL)

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

/* Pages of a piece that are to be stored, as offsets in its buffer. */
struct run {
	uint64_t begin, end;
};

#define MOST_RUNS (BUFFER / PAGE)

/* page_runs.c */
int64_t add_range(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t flags);
int64_t write_at(int fd, const uint8_t *from, uint64_t length, uint64_t offset);
int find_runs(const uint8_t *buffer, uint64_t length, uint64_t flags, struct run *runs, uint64_t *bytes);
int64_t write_runs(int fd, const uint8_t *buffer, const struct run *runs, int count, uint64_t offset);
int64_t add_runs(struct ranges *stored, const struct run *runs, int count, uint64_t start, uint64_t flags);

/* find_pages.c */
int64_t open_proc(int pid, const char *name);
int64_t find_in_area(struct ranges *found, int pid, int pagemap, const struct area *area);

/* inherited_pages.c: of what was found, marks what the parent has stored (ascending) and shares with the task. */
int64_t mark_inherited(struct ranges *found, int pid, int pagemap, int parent_pid, const struct placed *stored,
		       uint64_t count);

#endif
