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
	uint64_t all = ~0ULL, before;
	struct task *task;
	int status, error;
	int64_t ret;
	pid_t pid;

	task = mmap(NULL, sizeof(*task), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (task == MAP_FAILED)
		return -errno;
	task->work = work;
	task->argument = argument;
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&all, (uint64_t)&before, 8, 0, 0);
	/* No exit signal: nobody who waits for children of ckpt is told of its end. */
	pid = clone(begin, task->stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK, task);
	error = errno;
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&before, 0, 8, 0, 0);
	if (pid < 0) {
		munmap(task, sizeof(*task));
		return -error;
	}
	while ((ret = wait_task(pid, &status, WAIT_FOREVER)) == 0 && WIFSTOPPED(status))
		;
	if (ret < 0)
		return ret;
	munmap(task, sizeof(*task));
	return WIFEXITED(status) ? 0 : -ECHILD;
}
