/*
 * Which of many answers are the same: most sockets of a program have the same options, so that JavaScript need not
 * look at those of each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ckpt.h"

/* Of each record one part lies in each of two arrays; their sizes are multiples of 8. */
struct parts {
	const uint8_t *bytes;
	uint64_t size;
};

static uint64_t hash_of(const struct parts *parts, uint64_t index)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (int i = 0; i < 2; i++) {
		const uint64_t *words = (const uint64_t *)(parts[i].bytes + index * parts[i].size);

		for (uint64_t n = 0; n < parts[i].size / 8; n++) {
			hash = (hash ^ words[n]) * 0x9e3779b97f4a7c15;
			hash ^= hash >> 29;
		}
	}
	return hash;
}

static int is_same(const struct parts *parts, uint64_t a, uint64_t b)
{
	for (int i = 0; i < 2; i++) {
		uint64_t size = parts[i].size;

		if (memcmp(parts[i].bytes + a * size, parts[i].bytes + b * size, size))
			return 0;
	}
	return 1;
}

/*
 * Stores for each of `count` records (fewer than 2^31) the index of the first one that is the same. Returns 0;
 * -ENOMEM.
 */
EXPORT int64_t ckpt_find_alike(const uint8_t *a, uint64_t a_size, const uint8_t *b, uint64_t b_size, uint64_t count,
			       uint32_t *first)
{
	const struct parts parts[] = { { a, a_size }, { b, b_size } };
	uint64_t places = 4;
	uint32_t *known; /* index + 1; 0: nothing */

	while (places < 2 * count)
		places *= 2;
	known = calloc(places, sizeof *known);
	if (!known)
		return -ENOMEM;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = hash_of(parts, i) & (places - 1);

		while (known[at] && !is_same(parts, known[at] - 1, i))
			at = (at + 1) & (places - 1);
		if (!known[at])
			known[at] = i + 1;
		first[i] = known[at] - 1;
	}
	free(known);
	return 0;
}
