/*
 * Numbers for answers: the same for those that are the same, whenever they were given. Most sockets of a program have
 * the same options, and most tell the same when they are asked again; JavaScript need not look at those of each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ckpt.h"

/* An answer that was given, and what was answered before it. */
struct answer {
	uint64_t hash;
	uint32_t question, before;
	uint64_t sizes[2];
	uint8_t bytes[];
};

/* Of each answer one part lies in each of two arrays; their sizes are multiples of 8. */
struct parts {
	const uint8_t *bytes[2];
	uint64_t sizes[2];
};

/* By their numbers, of which the first is none; and their numbers, where their hashes lead (0: nothing). */
static struct answer **known;
static uint32_t *places;
static uint64_t count = 1, place_count;

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 29;
}

static uint64_t hash_of(const struct parts *parts, uint32_t question, uint32_t before)
{
	uint64_t hash = mix(question, before);

	for (int i = 0; i < 2; i++)
		for (uint64_t n = 0; n < parts->sizes[i] / 8; n++)
			hash = mix(hash, ((const uint64_t *)parts->bytes[i])[n]);
	return hash;
}

static int is_it(const struct answer *answer, uint64_t hash, const struct parts *parts, uint32_t question,
		 uint32_t before)
{
	return answer->hash == hash && answer->question == question && answer->before == before &&
	       !memcmp(answer->sizes, parts->sizes, sizeof parts->sizes) &&
	       !memcmp(answer->bytes, parts->bytes[0], parts->sizes[0]) &&
	       !memcmp(answer->bytes + parts->sizes[0], parts->bytes[1], parts->sizes[1]);
}

static int make_room(void)
{
	uint64_t wanted = place_count ? 2 * place_count : 1024;
	struct answer **more = realloc(known, wanted / 2 * sizeof *known);
	uint32_t *anew;

	if (!more)
		return -1;
	known = more;
	anew = calloc(wanted, sizeof *anew);
	if (!anew)
		return -1;
	for (uint64_t i = 1; i < count; i++) {
		uint64_t at = known[i]->hash & (wanted - 1);

		while (anew[at])
			at = (at + 1) & (wanted - 1);
		anew[at] = i;
	}
	free(places);
	places = anew;
	place_count = wanted;
	return 0;
}

/* 0: there is no memory left. */
static uint32_t number_of(const struct parts *parts, uint32_t question, uint32_t before)
{
	uint64_t hash = hash_of(parts, question, before), at;
	struct answer *answer;

	if (count >= place_count / 2 && make_room())
		return 0;
	at = hash & (place_count - 1);
	while (places[at]) {
		if (is_it(known[places[at]], hash, parts, question, before))
			return places[at];
		at = (at + 1) & (place_count - 1);
	}
	answer = malloc(sizeof *answer + parts->sizes[0] + parts->sizes[1]);
	if (!answer)
		return 0;
	*answer = (struct answer){ hash, question, before, { parts->sizes[0], parts->sizes[1] } };
	memcpy(answer->bytes, parts->bytes[0], parts->sizes[0]);
	memcpy(answer->bytes + parts->sizes[0], parts->bytes[1], parts->sizes[1]);
	known[count] = answer;
	places[at] = count;
	return count++;
}

/*
 * Stores the numbers of the answers that `rounds` descriptors (words, `fds`) have given to one question, which have two
 * parts of these sizes each. What a descriptor has answered before has its number in `all`, by descriptors, which gets
 * the new one. Returns 0; -ENOMEM.
 */
EXPORT int64_t ckpt_number_answers(uint32_t question, const uint8_t *a, uint64_t a_size, const uint8_t *b,
				   uint64_t b_size, const uint64_t *fds, uint64_t rounds, uint32_t *all,
				   uint32_t *numbers)
{
	for (uint64_t i = 0; i < rounds; i++) {
		const struct parts parts = { { a + i * a_size, b + i * b_size }, { a_size, b_size } };

		numbers[i] = number_of(&parts, question, all[fds[i]]);
		if (!numbers[i])
			return -ENOMEM;
		all[fds[i]] = numbers[i];
	}
	return 0;
}
