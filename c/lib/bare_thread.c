/*
 * A thread without the objects that a task may do without: an I/O context and a list of semaphore undos. kcmp(2) finds
 * two tasks alike that have none; whether they have one shows beside this thread.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/syscall.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

#define STACK 4096

static uint8_t stack[STACK] __attribute__((aligned(16)));

static int wait_for_ever(void *unused)
{
	for (;;)
		raw_call(SYS_pause, 0, 0, 0, 0, 0, 0);
	return unused != NULL;
}

#define WHO_PROCESS 1
#define PRIORITY_CLASS(priority) ((priority) >> 13)

/*
 * Starts it, with all signals blocked; it ends with ckpt. Its directories are its own: who has them in common with a
 * thread cannot enter a mount namespace (mntns_install in fs/namespace.c), as ckpt does. A thread gets an I/O context
 * with its maker's priority where that has one (copy_io in block/blk-ioc.c), so the maker, whose own may have come from
 * ionice(1), has none meanwhile. Returns its id.
 */
EXPORT int64_t ckpt_start_bare_thread(void)
{
	int64_t priority = raw_call(SYS_ioprio_get, WHO_PROCESS, 0, 0, 0, 0, 0), tid;
	int has_one = priority > 0 && PRIORITY_CLASS(priority);

	if (has_one)
		raw_call(SYS_ioprio_set, WHO_PROCESS, 0, 0, 0, 0, 0);
	tid = start_beside(wait_for_ever, stack + STACK, CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, NULL, NULL);
	if (has_one)
		raw_call(SYS_ioprio_set, WHO_PROCESS, 0, priority, 0, 0, 0);
	return tid < 0 ? fail(CAUSE_START_THREAD, 0, 0, tid) : tid;
}
