/* The same work for each of thousands of objects, on several processors where there are some. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>
#include "ckpt.h"

/* As older C libraries have them, too. */
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");

struct share {
	share_work *work;
	void *argument;
	uint64_t first, end;
	pthread_t thread;
};

static void *run_share(void *argument)
{
	const struct share *share = argument;

	share->work(share->argument, share->first, share->end);
	return NULL;
}

#define MOST_THREADS 4

void share_rounds(uint64_t rounds, uint64_t worth, share_work *work, void *argument)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t threads = processors < 1 ? 1 : processors > MOST_THREADS ? MOST_THREADS : processors;
	struct share shares[MOST_THREADS];
	uint64_t started = 0;

	if (threads > rounds / worth)
		threads = rounds / worth ? rounds / worth : 1;
	for (uint64_t i = 0; i < threads; i++)
		shares[i] = (struct share){ work, argument, rounds * i / threads, rounds * (i + 1) / threads, 0 };
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
}
