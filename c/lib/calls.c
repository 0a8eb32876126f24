/*
 * Many system calls at once: the same few for each of thousands of objects, which differ in their arguments only by
 * where these lie. From JavaScript one by one they would cost several times what the kernel needs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* As older C libraries have them, too. */
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");

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

struct share {
	const struct round_call *calls;
	uint64_t count, first, end;
	int64_t *results;
	pthread_t thread;
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

static void make_share(void *argument)
{
	const struct share *share = argument;

	for (uint64_t round = share->first; round < share->end; round++) {
		int64_t *results = share->results + round * share->count;

		for (uint64_t i = 0; i < share->count; i++)
			results[i] = make_call(&share->calls[i], round, results);
	}
}

static void *run_share(void *argument)
{
	make_share(argument);
	return NULL;
}

#define MOST_THREADS 4
/* A thread is not worth it for less. */
#define ROUNDS_OF_A_THREAD 256

/*
 * Makes `count` calls in each of `rounds` rounds, several rounds at a time where there are processors for it.
 * `results` gets what the kernel returned, count words a round: negative is -errno.
 */
EXPORT int64_t ckpt_calls(const struct round_call *calls, uint64_t count, uint64_t rounds, int64_t *results)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t threads = processors < 1 ? 1 : processors > MOST_THREADS ? MOST_THREADS : processors;
	struct share shares[MOST_THREADS];
	uint64_t started = 0;

	if (threads > rounds / ROUNDS_OF_A_THREAD)
		threads = rounds / ROUNDS_OF_A_THREAD ? rounds / ROUNDS_OF_A_THREAD : 1;
	for (uint64_t i = 0; i < threads; i++)
		shares[i] = (struct share){ calls, count, rounds * i / threads, rounds * (i + 1) / threads, results, 0 };
	for (uint64_t i = 1; i < threads; i++) {
		if (pthread_create(&shares[i].thread, NULL, run_share, &shares[i]))
			break;
		started = i;
	}
	run_share(&shares[0]);
	for (uint64_t i = 1; i < threads; i++) {
		if (i <= started)
			pthread_join(shares[i].thread, NULL);
		else
			run_share(&shares[i]);
	}
	return 0;
}

/* The same, one round after the other, and to the end whatever happens to ckpt. Returns 0; -errno when none was made. */
EXPORT int64_t ckpt_outliving_calls(const struct round_call *calls, uint64_t count, uint64_t rounds, int64_t *results)
{
	struct share all = { calls, count, 0, rounds, results, 0 };
	int64_t ret = run_outliving(make_share, &all);

	return ret < 0 ? fail(CAUSE_START_OUTLIVING, 0, rounds, ret) : 0;
}
