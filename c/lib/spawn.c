/*
 * Starting the agent as a task of its own, and driving it while it becomes another task (restore). Such a task
 * may die at any time: it ends with its tracer (PTRACE_O_EXITKILL), and before it is traced when the other end of
 * its standard input is closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../agent/agent.h"
#include "../agent/raw_call.h"
#include "ckpt.h"

struct child {
	/* Set: the child makes this grandchild and ends, so that the agent is nobody's child that may end. */
	struct clone_args *grandchild;
	int64_t pid; /* of the agent */
	int32_t elf_fd;
	int32_t lifeline_fd; /* becomes descriptor 0 */
	const int32_t *keep; /* descriptors that stay open under their own number */
	uint64_t keep_count;
	struct rlimit64 nofile;
	int64_t error;
};

/*
 * Runs in the memory of its parent, which sleeps meanwhile: raw system calls only. Undoes what the embedding
 * runtime left: SIGPIPE ignored, a raised descriptor limit, open descriptors.
 */
static int become_agent(void *arg)
{
	struct child *child = arg;
	char *const argv[] = { (char *)"ckpt-agent", NULL };
	struct {
		uint64_t handler, flags, restorer, mask;
	} dfl = { 0, 0, 0, 0 };
	int64_t ret;

	for (int signal = 1; signal <= 64; signal++)
		raw_call(SYS_rt_sigaction, signal, (uint64_t)&dfl, 0, 8, 0, 0);
	/* Above the kept descriptors, so that none of them is lost when 0 is replaced. */
	ret = raw_call(SYS_dup3, child->lifeline_fd, 0, 0, 0, 0, 0);
	if (ret >= 0)
		ret = raw_call(SYS_close_range, 1, ~0U, CLOSE_RANGE_CLOEXEC, 0, 0, 0);
	for (uint64_t i = 0; i < child->keep_count && ret >= 0; i++)
		ret = raw_call(SYS_fcntl, child->keep[i], F_SETFD, 0, 0, 0, 0);
	if (ret >= 0)
		ret = raw_call(SYS_prlimit64, 0, RLIMIT_NOFILE, (uint64_t)&child->nofile, 0, 0, 0);
	if (ret >= 0)
		ret = raw_call(SYS_execveat, child->elf_fd, (uint64_t) "", (uint64_t)argv, (uint64_t)&argv[1],
			       AT_EMPTY_PATH, 0);
	child->error = ret;
	raw_call(SYS_exit, 127, 0, 0, 0, 0, 0);
	return 0;
}

/* clone3(2) through a trampoline: the child starts on its own stack and calls `run`. */
static int64_t clone_child(struct clone_args *args, int (*run)(void *), struct child *child)
{
	int64_t ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%rbx, %%rdi\n\t"
			 "call *%%rdx\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "0"(SYS_clone3), "D"(args), "S"(sizeof(*args)), "b"(child), "d"(run)
			 : "rcx", "r11", "memory");
	return ret;
}

static int make_grandchild(void *arg)
{
	struct child *child = arg;

	child->pid = clone_child(child->grandchild, become_agent, child);
	raw_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

/* Traces an agent that waits for its tracer, with `options`, and stops it. Returns its pid. */
EXPORT int64_t ckpt_trace_agent(int32_t pid, uint64_t options)
{
	int status;
	int64_t ret;

	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0) {
		ret = fail(CAUSE_SEIZE, pid, 0, -errno);
		kill(pid, SIGKILL);
		return ret;
	}
	ret = wait_task(pid, &status, WAIT_FOREVER);
	if (!ret)
		ret = WIFSTOPPED(status) ? pid : fail(CAUSE_GONE, pid, status, -ESRCH);
	return ret;
}

#define CHILD_STACK 65536

/* Whose child the agent is. */
enum parent {
	PARENT_US = 0,      /* ckpt, which waits for it */
	PARENT_OURS = 1,    /* the parent of ckpt */
	PARENT_NOBODY = 2,  /* whoever takes orphans: ckpt goes away, and may not take the agent's death signal along */
};

/*
 * Starts the agent with pid `pid` (0: any). `keep` are descriptors for it to use, `lifeline_fd` the reading end of a pipe.
 * All signals are blocked in it. Traces it with `options` and stops it. Returns its pid; -EEXIST: the pid is taken.
 */
EXPORT int64_t ckpt_start_agent(int32_t pid, int32_t parent, int32_t lifeline_fd, const int32_t *keep,
				uint64_t keep_count, uint64_t nofile_soft, uint64_t nofile_hard, uint64_t options)
{
	pid_t wanted = pid;
	struct clone_args agent = {
		.flags = CLONE_VM | CLONE_VFORK | (parent == PARENT_OURS ? CLONE_PARENT : 0),
		.exit_signal = parent == PARENT_OURS ? 0 : SIGCHLD,
		.stack_size = CHILD_STACK,
		.set_tid = pid ? (uint64_t)&wanted : 0,
		.set_tid_size = pid ? 1 : 0,
	};
	struct clone_args between = { .flags = CLONE_VM | CLONE_VFORK, .stack_size = CHILD_STACK };
	struct child child = { .lifeline_fd = lifeline_fd, .keep = keep, .keep_count = keep_count,
			       .nofile = { nofile_soft, nofile_hard }, .grandchild = &agent };
	uint64_t all = ~0ULL, before;
	size_t size = agent_elf_end - agent_elf;
	int status;
	int64_t ret;
	uint8_t *stacks;

	child.elf_fd = memfd_create("ckpt-agent", MFD_CLOEXEC);
	if (child.elf_fd < 0)
		return fail(CAUSE_START_AGENT, pid, 0, -errno);
	stacks = mmap(NULL, 2 * CHILD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	agent.stack = (uint64_t)stacks;
	between.stack = (uint64_t)stacks + CHILD_STACK;
	if (stacks == MAP_FAILED || write(child.elf_fd, agent_elf, size) != (ssize_t)size) {
		ret = fail(CAUSE_START_AGENT, pid, 0, -errno);
		goto out;
	}
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&all, (uint64_t)&before, 8, 0, 0);
	if (parent == PARENT_NOBODY) {
		ret = clone_child(&between, make_grandchild, &child);
		if (ret > 0) {
			wait_task(ret, &status, WAIT_FOREVER);
			ret = child.pid;
		}
	} else {
		ret = clone_child(&agent, become_agent, &child);
	}
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&before, 0, 8, 0, 0);
	if (ret < 0) {
		fail(CAUSE_START_AGENT, pid, 0, ret);
		goto out;
	}
	pid = ret;
	if (child.error) {
		if (parent == PARENT_US)
			wait_task(pid, &status, WAIT_FOREVER);
		ret = fail(CAUSE_START_AGENT, pid, 1, child.error);
		goto out;
	}
	ret = ckpt_trace_agent(pid, options);
out:
	if (stacks != MAP_FAILED)
		munmap(stacks, 2 * CHILD_STACK);
	close(child.elf_fd);
	return ret;
}

/* Copies the agent into its host's memory at `address`. */
EXPORT int64_t ckpt_write_agent(int32_t memory_fd, uint64_t address)
{
	size_t size = agent_blob_end - agent_blob;

	if (pwrite(memory_fd, agent_blob, size, address) != (ssize_t)size)
		return fail(CAUSE_WRITE_MEMORY, 0, address, -errno);
	return size;
}

/* Points a stopped agent at a program; it runs when resumed. */
EXPORT int64_t ckpt_agent_point(int32_t tid, uint64_t agent, uint64_t program, uint64_t stack)
{
	struct user_regs_struct regs;
	int64_t ret = get_registers(tid, &regs);

	if (ret < 0)
		return ret;
	regs.rip = agent;
	regs.rdi = program;
	regs.rsp = stack;
	regs.orig_rax = -1;
	return set_registers(tid, &regs);
}

EXPORT int64_t ckpt_resume(int32_t tid)
{
	if (ptrace(PTRACE_CONT, tid, 0, 0) < 0)
		return fail(CAUSE_RESUME, tid, 0, -errno);
	return 0;
}

/*
 * Waits until a resumed agent has finished its program: it stops itself with SIGSTOP. Threads and processes that it
 * clones are traced from their birth; they are stored in `born` and stay stopped. Returns their number. `single`: it is
 * a process of one thread.
 *
 * One that has made a child by CLONE_VFORK stays stopped in that call, where it waits for the child as soon as it is let
 * go; its program is over, and its registers are those that it has when the call returns.
 */
EXPORT int64_t ckpt_agent_wait(int32_t tid, int32_t *born, uint64_t room, uint32_t single)
{
	uint64_t count = 0;

	for (;;) {
		int status;
		int64_t ret = single ? wait_single_task(tid, &status) : wait_task(tid, &status, WAIT_FOREVER);

		if (ret < 0)
			return ret;
		if (!WIFSTOPPED(status))
			return fail(CAUSE_GONE, tid, status, -ESRCH);
		if (STATUS_EVENT(status) == PTRACE_EVENT_CLONE || STATUS_EVENT(status) == PTRACE_EVENT_FORK ||
		    STATUS_EVENT(status) == PTRACE_EVENT_VFORK) {
			unsigned long child;
			int child_status;

			if (count == room)
				return fail(CAUSE_AGENT_STOP, tid, status, -ENOBUFS);
			if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &child) < 0)
				return fail(CAUSE_RESUME, tid, 0, -errno);
			ret = wait_task(child, &child_status, WAIT_FOREVER);
			if (ret < 0)
				return ret;
			if (!WIFSTOPPED(child_status))
				return fail(CAUSE_GONE, child, child_status, -ESRCH);
			born[count++] = child;
			if (STATUS_EVENT(status) == PTRACE_EVENT_VFORK)
				return count;
		} else if (!STATUS_EVENT(status)) {
			return WSTOPSIG(status) == SIGSTOP ? (int64_t)count :
							     fail(CAUSE_AGENT_STOP, tid, status, -EPROTO);
		}
		ret = ckpt_resume(tid);
		if (ret < 0)
			return ret;
	}
}

/* Lets a stopped agent run until it has ended by itself, by a call or a signal. Returns its wait status. */
EXPORT int64_t ckpt_agent_end(int32_t tid)
{
	int signal = 0;

	for (;;) {
		int status;
		int64_t ret;

		if (ptrace(PTRACE_CONT, tid, 0, signal) < 0)
			return fail(CAUSE_RESUME, tid, 0, -errno);
		ret = wait_task(tid, &status, WAIT_FOREVER);
		if (ret < 0)
			return ret;
		if (!WIFSTOPPED(status))
			return status;
		signal = STATUS_EVENT(status) ? 0 : WSTOPSIG(status);
	}
}

/*
 * Ends a stopped thread that is no leader, and not in the agent any more, with a system call instruction of its own
 * memory.
 */
EXPORT int64_t ckpt_exit_at(int32_t tid, uint64_t at)
{
	struct user_regs_struct regs;
	int64_t ret = get_registers(tid, &regs);

	if (ret < 0)
		return ret;
	regs.rip = at;
	regs.rax = SYS_exit;
	regs.rdi = 0;
	regs.orig_rax = -1;
	ret = set_registers(tid, &regs);
	return ret ? : ckpt_agent_end(tid);
}

/*
 * Lets a stopped leader run the program it was pointed at, which ends it by exit(2), while other threads of its
 * process stay stopped. It is not traced any more then: one that has ended could not be let go.
 */
EXPORT int64_t ckpt_end_leader(int32_t tid)
{
	if (ptrace(PTRACE_DETACH, tid, 0, 0) < 0)
		return fail(CAUSE_RESUME, tid, 0, -errno);
	return await_end(tid);
}

/* Resumes with a signal and waits for the stop that follows: a signal about to be delivered, or a group stop. */
static int64_t stop_after(int32_t tid, int signal, int stop_signal, int event)
{
	int status;
	int64_t ret;

	if (ptrace(PTRACE_CONT, tid, 0, signal) < 0)
		return fail(CAUSE_RESUME, tid, 0, -errno);
	ret = wait_task(tid, &status, WAIT_FOREVER);
	if (ret < 0)
		return ret;
	if (!WIFSTOPPED(status))
		return fail(CAUSE_GONE, tid, status, -ESRCH);
	if (WSTOPSIG(status) != stop_signal || STATUS_EVENT(status) != event)
		return fail(CAUSE_AGENT_STOP, tid, status, -EPROTO);
	return 0;
}

/*
 * Stops a process as job control does, while all its threads (one of them does it first) stay traced and stopped; it
 * runs nothing meanwhile. All signals have to be blocked in it. `signal` is what its parent is told. SIGSTOP always stops;
 * another one is let through by the mask of the first, its action must be the default, and its group not be orphaned.
 */
EXPORT int64_t ckpt_stop_group(const int32_t *tids, uint64_t count, int32_t signal)
{
	int64_t ret = set_signal_mask(tids[0], signal == SIGSTOP ? ~0ULL : ~(1ULL << (signal - 1)));

	if (!ret && syscall(SYS_tkill, tids[0], SIGSTOP) < 0)
		ret = fail(CAUSE_RESUME, tids[0], 0, -errno);
	if (!ret)
		ret = stop_after(tids[0], 0, SIGSTOP, 0);
	if (!ret)
		ret = stop_after(tids[0], signal, signal, PTRACE_EVENT_STOP);
	for (uint64_t i = 1; i < count && !ret; i++)
		ret = stop_after(tids[i], 0, signal, PTRACE_EVENT_STOP);
	return ret;
}

/*
 * Lets a process go on that ckpt_stop_group has stopped; its threads stay traced and stopped. Its parent is told, and
 * SIGCONT, which has to be blocked, waits to be taken.
 */
EXPORT int64_t ckpt_continue_group(int32_t pid, const int32_t *tids, uint64_t count)
{
	int64_t ret = 0;

	if (kill(pid, SIGCONT) < 0)
		return fail(CAUSE_RESUME, pid, SIGCONT, -errno);
	/* ptrace(2), PTRACE_SEIZE: a traced thread tells when the group stop has ended. */
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = stop_after(tids[i], 0, SIGTRAP, PTRACE_EVENT_STOP);
	return ret;
}

static int64_t resume_to_stop(int32_t tid)
{
	return ptrace(PTRACE_SYSCALL, tid, 0, 0) < 0 ? fail(CAUSE_RESUME, tid, 0, -errno) : 0;
}

static int64_t await_stop(int32_t tid)
{
	int status;
	int64_t ret = wait_task(tid, &status, WAIT_FOREVER);

	if (ret < 0)
		return ret;
	if (!WIFSTOPPED(status))
		return fail(CAUSE_GONE, tid, status, -ESRCH);
	if (WSTOPSIG(status) != SYSCALL_STOP)
		return fail(CAUSE_AGENT_STOP, tid, status, -EPROTO);
	return 0;
}

static int64_t next_stop(int32_t tid)
{
	return resume_to_stop(tid) ? : await_stop(tid);
}

/*
 * Runs the program the agent was pointed at up to the call that does not exist, stopping at each call: for
 * programs that queue signals, which SIGSTOP would disturb (it removes a pending SIGCONT).
 */
EXPORT int64_t ckpt_agent_step(int32_t tid)
{
	for (;;) {
		struct user_regs_struct regs;
		int64_t ret = next_stop(tid);

		if (!ret)
			ret = get_registers(tid, &regs);
		if (!ret)
			ret = next_stop(tid);
		if (ret)
			return ret;
		if (regs.orig_rax == AGENT_YIELD_NR)
			return 0;
	}
}

/* A task that has left the agent, and where a system call instruction is in it. */
struct call_place {
	uint64_t at;
	int64_t tid;
};

static int64_t begin_call(const struct call_place *place, int64_t nr, uint64_t a, uint64_t b)
{
	struct user_regs_struct regs;
	int64_t ret = get_registers(place->tid, &regs);

	if (ret < 0)
		return ret;
	regs.rip = place->at;
	regs.rax = nr;
	regs.rdi = a;
	regs.rsi = b;
	regs.orig_rax = -1;
	ret = set_registers(place->tid, &regs);
	return ret ? : resume_to_stop(place->tid);
}

static int64_t end_call(int32_t tid, int64_t nr)
{
	struct user_regs_struct regs;
	int64_t ret = await_stop(tid);

	if (!ret)
		ret = get_registers(tid, &regs);
	if (!ret && (int64_t)regs.rax < 0)
		return fail(CAUSE_AGENT_CALL, tid, nr, regs.rax);
	return ret;
}

/* Lets tasks make the same system call, side by side; how the agents' memory is unmapped. */
EXPORT int64_t ckpt_call_at(const struct call_place *places, uint64_t count, int64_t nr, uint64_t a, uint64_t b)
{
	int64_t ret = 0;

	for (uint64_t i = 0; i < count && !ret; i++)
		ret = begin_call(&places[i], nr, a, b);
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = await_stop(places[i].tid) ? : resume_to_stop(places[i].tid);
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = end_call(places[i].tid, nr);
	return ret;
}

/*
 * The moment of all or none: first no thread dies with us any more, then all go on. Until the first step is done
 * for all, our death ends them; after it, our death lets them go.
 */
EXPORT int64_t ckpt_release(const int32_t *tids, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (ptrace(PTRACE_SETOPTIONS, tids[i], 0, 0) < 0)
			return fail(CAUSE_RESUME, tids[i], 0, -errno);
	for (uint64_t i = 0; i < count; i++)
		ptrace(PTRACE_DETACH, tids[i], 0, 0);
	return 0;
}
