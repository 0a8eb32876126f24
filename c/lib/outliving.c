/*
 * Work that must not stop half way when ckpt is killed: a tiny process of its own does it, in the memory and with the
 * descriptors of ckpt. SIGKILL of ckpt does not end it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

#define STACK 16384

struct task {
	uint8_t stack[STACK];
	void (*work)(void *);
	void *argument;
};

/*
 * Starts a process in the memory of ckpt, with all signals blocked. It has no exit signal: nobody who waits for
 * children of ckpt is told of its end. `flags` are those of clone(2) besides; CLONE_PIDFD stores into `pidfd`. Returns
 * its pid; -errno.
 */
int64_t start_beside(int (*run)(void *), uint8_t *stack_end, int flags, void *argument, int32_t *pidfd)
{
	uint64_t all = ~0ULL, before;
	int64_t pid;
	int error;

	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&all, (uint64_t)&before, 8, 0, 0);
	pid = clone(run, stack_end, CLONE_VM | flags, argument, pidfd);
	error = errno;
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&before, 0, 8, 0, 0);
	return pid < 0 ? -error : pid;
}

static int begin(void *arg)
{
	struct task *task = arg;

	/* The end of ckpt's session or process group is no end for it. */
	raw_call(SYS_setsid, 0, 0, 0, 0, 0, 0);
	task->work(task->argument);
	raw_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

/*
 * Lets that process do `work`, which makes raw system calls only (what libc keeps for a thread is the caller's), and
 * waits for it. Returns 0; -errno.
 */
int64_t run_outliving(void (*work)(void *), void *argument)
{
	struct task *task;
	int64_t ret, pid;
	int status;

	task = mmap(NULL, sizeof(*task), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (task == MAP_FAILED)
		return -errno;
	task->work = work;
	task->argument = argument;
	pid = start_beside(begin, task->stack + STACK, CLONE_FILES | CLONE_VFORK, task, NULL);
	if (pid < 0) {
		munmap(task, sizeof(*task));
		return pid;
	}
	while ((ret = wait_task(pid, &status, WAIT_FOREVER)) == 0 && WIFSTOPPED(status))
		;
	if (ret < 0)
		return ret;
	munmap(task, sizeof(*task));
	return WIFEXITED(status) ? 0 : -ECHILD;
}
