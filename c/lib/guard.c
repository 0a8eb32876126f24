/*
 * A tiny process that outlives ckpt: when ckpt ends without a word, even by SIGKILL, or holds on for too long, it does
 * what was prepared: it writes into files, as the state of cgroups that ckpt has changed for a moment, thaws file
 * systems, or removes names.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* What to do with which file. lib/ffi/guard.ts has the same. */
enum guard_act { GUARD_WRITE, GUARD_REQUEST, GUARD_UNLINK, GUARD_RMDIR };

struct guard_order {
	int32_t fd;
	uint32_t act;	  /* enum guard_act */
	uint32_t request; /* of an ioctl(2) without an argument */
	char text[148];	  /* what is written, or the way from `fd` to what is removed; ends with a zero */
};

#define STACK 16384
#define MOST_ORDERS 256

struct guard {
	uint8_t stack[STACK];
	int32_t pid;
	int32_t lifeline[2];
	int64_t seconds; /* after which it does not wait any more; negative: never */
	uint64_t count;
	struct guard_order orders[MOST_ORDERS];
};

/* The lowest descriptor from `from` on that the guard needs; -1: none. */
static int next_kept(const struct guard *guard, int from)
{
	int lowest = guard->lifeline[0] >= from ? guard->lifeline[0] : -1;

	for (uint64_t i = 0; i < guard->count; i++) {
		int fd = guard->orders[i].fd;

		if (fd >= from && (lowest < 0 || fd < lowest))
			lowest = fd;
	}
	return lowest;
}

static void carry_out(const struct guard_order *order)
{
	uint64_t length = 0;

	switch (order->act) {
	case GUARD_WRITE:
		while (order->text[length])
			length++;
		raw_call(SYS_write, order->fd, (uint64_t)order->text, length, 0, 0, 0);
		break;
	case GUARD_REQUEST:
		raw_call(SYS_ioctl, order->fd, order->request, 0, 0, 0, 0);
		break;
	case GUARD_UNLINK:
	case GUARD_RMDIR:
		raw_call(SYS_unlinkat, order->fd, (uint64_t)order->text,
			 order->act == GUARD_RMDIR ? AT_REMOVEDIR : 0, 0, 0, 0);
		break;
	}
}

/*
 * Runs in the memory of ckpt, which costs no copy of it and lasts when ckpt is gone: raw system calls only. Has a
 * descriptor table of its own, in which the other end of the lifeline is closed.
 */
static int watch(void *arg)
{
	const struct guard *guard = arg;
	struct timespec left = { .tv_sec = guard->seconds };
	struct pollfd lifeline = { .fd = guard->lifeline[0], .events = POLLIN };
	int from = 0, kept;
	int64_t ret;
	char word;

	/* The end of ckpt's session or process group is no end for it. */
	raw_call(SYS_setsid, 0, 0, 0, 0, 0, 0);
	for (; (kept = next_kept(guard, from)) >= 0; from = kept + 1)
		if (kept > from)
			raw_call(SYS_close_range, from, kept - 1, 0, 0, 0, 0);
	raw_call(SYS_close_range, from, ~0U, 0, 0, 0, 0);
	/* The kernel counts `left` down when it is interrupted. */
	do
		ret = raw_call(SYS_ppoll, (uint64_t)&lifeline, 1, guard->seconds < 0 ? 0 : (uint64_t)&left, 0, 8, 0);
	while (ret == -EINTR);
	if (ret > 0)
		ret = raw_call(SYS_read, guard->lifeline[0], (uint64_t)&word, 1, 0, 0, 0);
	for (uint64_t i = 0; i < guard->count && ret == 0; i++)
		carry_out(&guard->orders[i]);
	raw_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

static void discard(struct guard *guard)
{
	close(guard->lifeline[0]);
	close(guard->lifeline[1]);
	munmap(guard, sizeof(*guard));
}

/*
 * Starts a guard with orders, whose texts have to end with a zero; it carries them out after `seconds` at the latest,
 * unless that is negative. Returns its address; it stays until ckpt_end_guard.
 */
EXPORT int64_t ckpt_start_guard(const struct guard_order *orders, uint64_t count, int64_t seconds)
{
	struct guard *guard;
	int64_t ret;

	if (count > MOST_ORDERS)
		return fail(CAUSE_START_GUARD, 0, count, -E2BIG);
	guard = mmap(NULL, sizeof(*guard), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guard == MAP_FAILED)
		return fail(CAUSE_START_GUARD, 0, count, -errno);
	memcpy(guard->orders, orders, count * sizeof(*orders));
	guard->count = count;
	guard->seconds = seconds;
	if (pipe2(guard->lifeline, O_CLOEXEC) < 0) {
		ret = -errno;
		munmap(guard, sizeof(*guard));
		return fail(CAUSE_START_GUARD, 0, count, ret);
	}
	ret = start_beside(watch, guard->stack + STACK, 0, guard, NULL);
	if (ret < 0) {
		discard(guard);
		return fail(CAUSE_START_GUARD, 0, count, ret);
	}
	guard->pid = ret;
	return (int64_t)guard;
}

/* Ends a guard; it does nothing more. */
EXPORT int64_t ckpt_end_guard(struct guard *guard)
{
	int status;

	/* When it is gone already, the other end of the pipe is still ours: no SIGPIPE. */
	if (write(guard->lifeline[1], "", 1) != 1)
		return fail(CAUSE_START_GUARD, guard->pid, 0, -errno);
	while (wait_task(guard->pid, &status, WAIT_FOREVER) == 0 && WIFSTOPPED(status))
		;
	discard(guard);
	return 0;
}
