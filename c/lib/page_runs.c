/* Lists of pages, and which of some that were read are to be stored: those of zeros need not be. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pages.h"

int64_t add_range(struct ranges *ranges, uint64_t start, uint64_t end, uint64_t flags)
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

int64_t write_at(int fd, const uint8_t *from, uint64_t length, uint64_t offset)
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

/* Pages of zeros are left out where that is the default. Returns the number of runs; their bytes are added up. */
int find_runs(const uint8_t *buffer, uint64_t length, uint64_t flags, struct run *runs, uint64_t *bytes)
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

int64_t write_runs(int fd, const uint8_t *buffer, const struct run *runs, int count, uint64_t offset)
{
	int64_t ret = 0;

	for (int i = 0; i < count && !ret; i++) {
		ret = write_at(fd, buffer + runs[i].begin, runs[i].end - runs[i].begin, offset);
		offset += runs[i].end - runs[i].begin;
	}
	return ret;
}

int64_t add_runs(struct ranges *stored, const struct run *runs, int count, uint64_t start, uint64_t flags)
{
	int64_t ret = 0;

	for (int i = 0; i < count && !ret; i++)
		ret = add_range(stored, start + runs[i].begin, start + runs[i].end, flags);
	return ret;
}

/* Gives back a list of ranges. */
EXPORT void ckpt_free(void *list)
{
	free(list);
}
