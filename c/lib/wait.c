/*
 * Waiting for a task: always for one task by its id, never for any child, so that children of the embedding
 * program are left alone. A finite wait polls, because a task in an uninterruptible sleep does not stop, and
 * the caller must be able to give up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include "ckpt.h"

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/*
 * Waits until `tid` stops or ends and stores its wait status. Returns 0, -ETIMEDOUT, or -errno.
 * `timeout_ms` may be WAIT_FOREVER.
 */
int64_t wait_task(pid_t tid, int *status, int timeout_ms)
{
	int64_t start = timeout_ms == WAIT_FOREVER ? 0 : now_ns();

	for (unsigned tries = 0;; tries++) {
		int flags = __WALL | (timeout_ms == WAIT_FOREVER ? 0 : WNOHANG);
		int64_t ret = waitpid(tid, status, flags);

		if (ret == tid)
			return 0;
		if (ret < 0 && errno != EINTR)
			return fail(CAUSE_WAIT, tid, 0, -errno);
		if (timeout_ms == WAIT_FOREVER)
			continue;
		if (now_ns() - start > timeout_ms * 1000000LL)
			return fail(CAUSE_WAIT, tid, 0, -ETIMEDOUT);
		/* A stop usually takes microseconds: let the task run first, then sleep longer each time. */
		if (tries < 50)
			sched_yield();
		else
			nanosleep(&(struct timespec){ 0, tries < 200 ? 20000 : 500000 }, NULL);
	}
}
