/*
 * Waiting for a task: always for one task by its id, never for any child, so that children of the embedding
 * program are left alone.
 *
 * It polls instead of sleeping in wait4(2). A stop usually comes within microseconds; a task in an uninterruptible
 * sleep does not stop at all, and the caller must be able to give up; and the end of a killed leader is not told
 * before the ends of all its traced threads are taken (delay_group_leader in kernel/exit.c), which would be for ever.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "ckpt.h"

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int has_ended(pid_t tid)
{
	char path[32], text[512], *state;
	ssize_t n;
	int fd, gone;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH;
	n = read(fd, text, sizeof(text) - 1);
	gone = n < 0 && errno == ESRCH; /* since it was opened */
	close(fd);
	if (n <= 0)
		return gone;
	text[n] = 0;
	/* The name may hold anything; the state follows its last parenthesis. */
	state = strrchr(text, ')');
	return state && (state[2] == 'Z' || state[2] == 'X');
}

#define END_TIMEOUT_MS 10000

/* Waits until a task that nobody traces has ended, whoever is to take its status. Returns 0; -ETIMEDOUT. */
int64_t await_end(pid_t tid)
{
	int64_t start = now_ns();

	while (!has_ended(tid)) {
		if (now_ns() - start > END_TIMEOUT_MS * 1000000LL)
			return fail(CAUSE_WAIT, tid, 0, -ETIMEDOUT);
		nanosleep(&(struct timespec){ 0, 20000 }, NULL);
	}
	return 0;
}

#define SPINS 200          /* give way to the task, which is about to stop */
#define SHORT_SLEEPS 200   /* 20 us each */
#define SLEEPS_PER_LOOK 20 /* 0.5 ms each; then see whether it is still there */

/*
 * Waits until `tid` stops or ends and stores its wait status. Returns 0; -ETIMEDOUT; -ESRCH when it has ended but
 * its status is not to be had; or -errno. `timeout_ms` may be WAIT_FOREVER.
 */
int64_t wait_task(pid_t tid, int *status, int timeout_ms)
{
	int64_t start = 0;

	for (unsigned tries = 0;; tries++) {
		int64_t ret = waitpid(tid, status, __WALL | WNOHANG);

		if (ret == tid)
			return 0;
		if (ret < 0 && errno != EINTR)
			return fail(CAUSE_WAIT, tid, 0, -errno);
		if (tries < SPINS) {
			sched_yield();
			continue;
		}
		if (tries == SPINS)
			start = now_ns();
		nanosleep(&(struct timespec){ 0, tries < SPINS + SHORT_SLEEPS ? 20000 : 500000 }, NULL);
		if (timeout_ms != WAIT_FOREVER && now_ns() - start > timeout_ms * 1000000LL)
			return fail(CAUSE_WAIT, tid, 0, -ETIMEDOUT);
		if (tries > SPINS + SHORT_SLEEPS && tries % SLEEPS_PER_LOOK == 0 && has_ended(tid) &&
		    waitpid(tid, status, __WALL | WNOHANG) == 0)
			return fail(CAUSE_GONE, tid, 0, -ESRCH);
	}
}

/*
 * The same as wait_task, for ever, for a process of one thread, whose end is told at once: it sleeps until then, so that
 * the kernel may let others have this processor.
 */
int64_t wait_single_task(pid_t tid, int *status)
{
	for (unsigned tries = 0;; tries++) {
		int64_t ret = waitpid(tid, status, tries < SPINS ? __WALL | WNOHANG : __WALL);

		if (ret == tid)
			return 0;
		if (ret < 0 && errno != EINTR)
			return fail(CAUSE_WAIT, tid, 0, -errno);
		sched_yield();
	}
}
