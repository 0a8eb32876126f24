/*
 * A tracer that outlives ckpt. Seccomp filters are suspended only while a task is traced, and syscall user dispatch
 * has to be off while calls are made in it: such a task cannot put itself back when its tracer is killed. So a tiny
 * process traces it in ckpt's stead, makes every call of ptrace(2) and wait(2) for ckpt, and puts the task back
 * should ckpt end in the middle of it, also by SIGKILL.
 *
 * It runs in ckpt's memory and has its descriptors, which both last when ckpt is gone. Either it runs or the thread
 * of ckpt that waits for its answer, with all signals blocked: so both may use libc, whose thread they are one to. No
 * function called here may take a lock of libc (malloc): the thread that has it may be gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

#define STACK 65536
#define ARGUMENTS 8
#define SIGNAL_SET 8 /* bytes */

typedef int64_t function(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

struct tracer {
	uint8_t stack[STACK];
	int32_t pid, owner;
	/* pidfd_open(2), eventfd(2) */
	int32_t pidfd, owner_pidfd, asked, answered;
	function *function; /* NULL: it is to end */
	uint64_t arguments[ARGUMENTS];
	int64_t result;
};

/* The one that runs, while it serves. */
static const struct tracer *serving;

int is_abandoned(void)
{
	return serving && getpid() == serving->pid && getppid() != serving->owner;
}

static int is_readable(const struct pollfd *fd)
{
	return fd->revents & POLLIN;
}

static void await_any(struct pollfd *fds, uint64_t count)
{
	raw_call(SYS_ppoll, (uint64_t)fds, count, 0, 0, SIGNAL_SET, 0);
}

static void tell(int32_t event)
{
	const uint64_t one = 1;

	raw_call(SYS_write, event, (uint64_t)&one, sizeof(one), 0, 0, 0);
}

static void take(int32_t event)
{
	uint64_t count;

	raw_call(SYS_read, event, (uint64_t)&count, sizeof(count), 0, 0, 0);
}

static int serve(void *arg)
{
	struct tracer *tracer = arg;
	const uint64_t *a = tracer->arguments;

	/* The end of ckpt's session or process group is no end for it. */
	raw_call(SYS_setsid, 0, 0, 0, 0, 0, 0);
	for (;;) {
		struct pollfd fds[] = { { .fd = tracer->owner_pidfd, .events = POLLIN },
					{ .fd = tracer->asked, .events = POLLIN } };

		await_any(fds, 2);
		if (is_readable(&fds[0])) {
			serving = NULL;
			put_all_back();
			break;
		}
		if (!is_readable(&fds[1]))
			continue;
		take(tracer->asked);
		if (!tracer->function)
			break;
		tracer->result = tracer->function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
		tell(tracer->answered);
	}
	/* What is traced still is let go; copies of processes end (PTRACE_O_EXITKILL). */
	raw_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

static uint64_t block_signals(uint64_t mask)
{
	uint64_t before = 0;

	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&mask, (uint64_t)&before, SIGNAL_SET, 0, 0);
	return before;
}

static void discard(struct tracer *tracer)
{
	const int32_t fds[] = { tracer->pidfd, tracer->owner_pidfd, tracer->asked, tracer->answered };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	munmap(tracer, sizeof(*tracer));
}

/* Starts the tracer and stores its pid. Returns its address; it stays until ckpt_end_tracer. One at a time. */
EXPORT int64_t ckpt_start_tracer(int32_t *pid)
{
	struct tracer *tracer =
		mmap(NULL, sizeof(*tracer), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t ret;

	if (tracer == MAP_FAILED)
		return fail(CAUSE_START_TRACER, 0, 0, -errno);
	tracer->owner = getpid();
	tracer->pidfd = -1;
	tracer->owner_pidfd = syscall(SYS_pidfd_open, tracer->owner, 0);
	tracer->asked = eventfd(0, EFD_CLOEXEC);
	tracer->answered = eventfd(0, EFD_CLOEXEC);
	if (tracer->owner_pidfd < 0 || tracer->asked < 0 || tracer->answered < 0)
		ret = -errno;
	else
		ret = start_beside(serve, tracer->stack + STACK, CLONE_FILES | CLONE_PIDFD, tracer, &tracer->pidfd);
	if (ret < 0) {
		discard(tracer);
		return fail(CAUSE_START_TRACER, 0, 0, ret);
	}
	tracer->pid = ret;
	serving = tracer;
	*pid = tracer->pid;
	return (int64_t)tracer;
}

/* Lets the tracer call a function of this library, whose arguments are all integers or pointers, and waits for it. */
EXPORT int64_t ckpt_by_tracer(struct tracer *tracer, function *function, const uint64_t arguments[ARGUMENTS])
{
	struct pollfd fds[] = { { .fd = tracer->answered, .events = POLLIN },
				{ .fd = tracer->pidfd, .events = POLLIN } };
	uint64_t mask = block_signals(~0ULL);

	tracer->function = function;
	memcpy(tracer->arguments, arguments, sizeof(tracer->arguments));
	tell(tracer->asked);
	await_any(fds, 2);
	if (is_readable(&fds[0]))
		take(tracer->answered);
	block_signals(mask);
	return is_readable(&fds[0]) ? tracer->result : fail(CAUSE_TRACER, tracer->pid, 0, -ESRCH);
}

/* Ends the tracer; tasks that it traces still go on as they stand. */
EXPORT int64_t ckpt_end_tracer(struct tracer *tracer)
{
	int status;

	tracer->function = NULL;
	tell(tracer->asked);
	while (wait_task(tracer->pid, &status, WAIT_FOREVER) == 0 && WIFSTOPPED(status))
		;
	serving = NULL;
	discard(tracer);
	return 0;
}
