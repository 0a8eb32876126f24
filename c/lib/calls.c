/*
 * Many system calls at once: the same few for each of thousands of objects, which differ in their arguments only by
 * where these lie. From JavaScript one by one they would cost several times what the kernel needs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

enum argument_kind {
	ARGUMENT_STEPS = 0, /* base + round * step */
	ARGUMENT_LOADED = 1, /* the word at that address */
	ARGUMENT_RESULT = 2, /* the result of an earlier call of the round, by its index */
};

/* lib/ffi/calls.ts writes these. */
struct round_call {
	uint16_t nr;
	uint8_t kinds[6];
	int64_t after; /* not made unless this earlier call of the round succeeded; -1: always */
	uint64_t base[6];
	uint64_t step[6];
};

struct round_calls {
	const struct round_call *calls;
	uint64_t count, rounds;
	int64_t *results;
};

/* Fails with ECANCELED without being made, when a call failed that it needs. */
static int64_t make_call(const struct round_call *call, uint64_t round, const int64_t *results)
{
	uint64_t value[6];

	if (call->after >= 0 && results[call->after] < 0)
		return -ECANCELED;
	for (int i = 0; i < 6; i++) {
		if (call->kinds[i] == ARGUMENT_RESULT) {
			if (results[call->base[i]] < 0)
				return -ECANCELED;
			value[i] = results[call->base[i]];
			continue;
		}
		value[i] = call->base[i] + round * call->step[i];
		if (call->kinds[i] == ARGUMENT_LOADED)
			value[i] = *(uint64_t *)value[i];
	}
	return raw_call(call->nr, value[0], value[1], value[2], value[3], value[4], value[5]);
}

static void make_rounds(void *argument, uint64_t first, uint64_t end)
{
	const struct round_calls *all = argument;

	for (uint64_t round = first; round < end; round++) {
		int64_t *results = all->results + round * all->count;

		for (uint64_t i = 0; i < all->count; i++)
			results[i] = make_call(&all->calls[i], round, results);
	}
}

/*
 * Makes `count` calls in each of `rounds` rounds, several rounds at a time where there are processors for it.
 * `results` gets what the kernel returned, count words a round: negative is -errno.
 */
EXPORT int64_t ckpt_calls(const struct round_call *calls, uint64_t count, uint64_t rounds, int64_t *results)
{
	struct round_calls all = { calls, count, rounds, results };

	share_rounds(rounds, CALLS_WORTH_A_THREAD / (count | 1) + 1, make_rounds, &all);
	return 0;
}

static void make_all(void *argument)
{
	const struct round_calls *all = argument;

	make_rounds(argument, 0, all->rounds);
}

/* The same, one round after the other, where they would only wait for each other. */
EXPORT int64_t ckpt_calls_in_turn(const struct round_call *calls, uint64_t count, uint64_t rounds, int64_t *results)
{
	struct round_calls all = { calls, count, rounds, results };

	make_all(&all);
	return 0;
}

/* The same, and to the end whatever happens to ckpt. Returns 0; -errno when none was made. */
EXPORT int64_t ckpt_outliving_calls(const struct round_call *calls, uint64_t count, uint64_t rounds, int64_t *results)
{
	struct round_calls all = { calls, count, rounds, results };
	int64_t ret = run_outliving(make_all, &all);

	return ret < 0 ? fail(CAUSE_START_OUTLIVING, 0, rounds, ret) : 0;
}
