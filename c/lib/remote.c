/*
 * Running system calls in a stopped task, harmlessly: whatever happens to us, the task is as it was.
 *
 * Before the first register is changed, the cure (cure.S) is written with the task's own registers and signal
 * mask into unused bytes of one of its executable pages (the "cave"; normally the tail of the vdso). From then on
 * every path the task can take without us ends in the cure. Order matters in every function here:
 *   in:   cave written, registers, signal mask
 *   out:  signal mask, registers, cave wiped (by the caller, when no thread can be in it)
 * so that at any instant the task either has its own registers, or registers that lead to the cure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../agent/agent.h"
#include "ckpt.h"

/* linux/ptrace.h of 6.4 and later. */
#define SET_SYSCALL_USER_DISPATCH_CONFIG 0x4210

extern const uint8_t cure_begin[], cure_end[], cure_slots[];

/* Syscall user dispatch (struct ptrace_sud_config); mode 0: off. */
struct dispatch {
	uint64_t mode, selector, offset, length;
};

/* The order of the slots in cure.S. */
struct cure_slots {
	uint64_t area_length, mask, flags, rsp, rip;
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	struct dispatch dispatch;
};

/* The largest cure, so that a cave can be chosen before: two fit the tail of any known vdso. */
EXPORT int64_t ckpt_cure_size(void)
{
	return cure_end - cure_begin;
}

/* How a task is to be put back. */
struct host {
	int32_t tid;
	int32_t memory_fd; /* /proc/PID/mem, read and write */
	uint64_t cave;
	uint64_t signal_mask;
	/* Where the cure continues: an interrupted system call is begun again there, as the kernel would. */
	uint64_t cure_rip;
	uint64_t cure_rax;
	struct user_regs_struct regs;
	struct dispatch dispatch;
	/* A signal that the task ignores and does not block, for programs at full speed; 0: there is none. */
	uint64_t quiet_signal;
	uint64_t pid;
};

/* Tasks with an agent in them, for the case that nobody else takes it out any more. */
#define MOST_ENTERED 64
static struct entered {
	struct host host;
	uint64_t area;
} entered[MOST_ENTERED];
static uint64_t entered_count;

static void forget_entered(int32_t tid)
{
	for (uint64_t i = 0; i < entered_count; i++)
		if (entered[i].host.tid == tid) {
			entered[i] = entered[--entered_count];
			return;
		}
}

static int64_t write_memory(const struct host *host, uint64_t address, const void *data, size_t length)
{
	if (pwrite(host->memory_fd, data, length, address) != (ssize_t)length)
		return fail(CAUSE_WRITE_MEMORY, host->tid, address, errno ? -errno : -EIO);
	return 0;
}

static int64_t write_cure(const struct host *host, uint64_t area_length)
{
	const struct user_regs_struct *r = &host->regs;
	struct cure_slots slots = {
		area_length, host->signal_mask, r->eflags, r->rsp, host->cure_rip,
		r->r15, r->r14, r->r13, r->r12, r->rbp, r->rbx, r->r11, r->r10, r->r9, r->r8,
		host->cure_rax, r->rcx, r->rdx, r->rsi, r->rdi,
		host->dispatch,
	};
	uint8_t cure[512];
	size_t size = cure_end - cure_begin;

	memcpy(cure, cure_begin, size);
	memcpy(cure + (cure_slots - cure_begin), &slots, sizeof(slots));
	return write_memory(host, host->cave, cure, size);
}

/* The calls made in a task are quick; a task that does not come back is held by a cgroup freezer, or starved. */
#define STOP_TIMEOUT_MS 10000

/* Stops a task that did not reach its next stop, so that it can be put back. */
static int64_t stop_again(pid_t tid)
{
	int status;

	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0)
		wait_task(tid, &status, STOP_TIMEOUT_MS);
	return fail(CAUSE_AGENT_STOP, tid, 0, -ETIMEDOUT);
}

/* Resumes until the next system call stop, on entry or on exit. */
static int64_t next_call_stop(int32_t tid)
{
	int signal = 0;

	for (;;) {
		int status;
		int64_t ret;

		if (ptrace(PTRACE_SYSCALL, tid, 0, signal) < 0)
			return fail(CAUSE_RESUME, tid, 0, -errno);
		ret = wait_task(tid, &status, STOP_TIMEOUT_MS);
		if (ret == -ETIMEDOUT)
			return stop_again(tid);
		if (ret < 0)
			return ret;
		if (!WIFSTOPPED(status))
			return fail(CAUSE_GONE, tid, status, -ESRCH);
		if (WSTOPSIG(status) == SYSCALL_STOP)
			return 0;
		/*
		 * All signals are blocked, so this is SIGSTOP: it takes effect (group stop is in force when we
		 * let go), but the agent's work is finished first.
		 */
		signal = STATUS_EVENT(status) ? 0 : WSTOPSIG(status);
	}
}

static int64_t start_at(const struct host *host, uint64_t rip, int64_t nr, const uint64_t args[6])
{
	struct user_regs_struct regs = host->regs;

	regs.rip = rip;
	regs.orig_rax = -1;
	regs.rax = nr;
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	return set_registers(host->tid, &regs);
}

/* One system call at the cave; the result, which may be a -errno of the call's own, is stored. */
static int64_t call_at_cave(const struct host *host, int64_t nr, const uint64_t args[6], int64_t *result)
{
	struct user_regs_struct regs;
	int64_t ret = start_at(host, host->cave, nr, args);

	if (!ret)
		ret = set_signal_mask(host->tid, ~0ULL);
	if (!ret)
		ret = next_call_stop(host->tid);
	if (!ret)
		ret = next_call_stop(host->tid);
	if (!ret)
		ret = get_registers(host->tid, &regs);
	if (!ret)
		*result = regs.rax;
	return ret;
}

/* Dispatch would turn our calls into signals for the program. */
static int64_t set_dispatch(const struct host *host, const struct dispatch *dispatch)
{
	if (!host->dispatch.mode)
		return 0;
	if (ptrace(SET_SYSCALL_USER_DISPATCH_CONFIG, host->tid, sizeof(*dispatch), dispatch) < 0)
		return fail(CAUSE_DISPATCH, host->tid, 0, -errno);
	return 0;
}

static int64_t put_back(const struct host *host)
{
	int64_t mask = set_signal_mask(host->tid, host->signal_mask);
	int64_t regs = set_registers(host->tid, &host->regs);
	int64_t dispatch = set_dispatch(host, &host->dispatch);

	return mask ? mask : regs ? regs : dispatch;
}

/* Enters the agent with these registers; returns when it hands control back, with its registers then. */
static int64_t run_to_yield(const struct host *host, struct user_regs_struct *regs)
{
	int64_t ret = set_registers(host->tid, regs);

	for (;;) {
		if (!ret)
			ret = next_call_stop(host->tid); /* entry */
		if (!ret)
			ret = get_registers(host->tid, regs);
		if (!ret)
			ret = next_call_stop(host->tid); /* exit */
		if (ret < 0)
			return ret;
		if (regs->orig_rax == AGENT_YIELD_NR)
			return 0;
	}
}

/* Runs at full speed until the agent sends itself the quiet signal, as the last thing it does. */
static int64_t run_to_quiet_signal(const struct host *host, struct user_regs_struct *regs)
{
	int64_t ret = set_registers(host->tid, regs);

	if (!ret)
		ret = set_signal_mask(host->tid, ~(1ULL << (host->quiet_signal - 1)));
	while (!ret) {
		int status;

		if (ptrace(PTRACE_CONT, host->tid, 0, 0) < 0)
			return fail(CAUSE_RESUME, host->tid, 0, -errno);
		ret = wait_task(host->tid, &status, STOP_TIMEOUT_MS);
		if (ret == -ETIMEDOUT)
			return stop_again(host->tid);
		if (!ret && !WIFSTOPPED(status))
			return fail(CAUSE_GONE, host->tid, status, -ESRCH);
		if (!ret)
			ret = get_registers(host->tid, regs);
		/* Somebody else may send it as well; that is lost, as it would be without us. */
		if (!ret && !STATUS_EVENT(status) && WSTOPSIG(status) == (int)host->quiet_signal &&
		    regs->orig_rax == SYS_tgkill)
			return 0;
	}
	return ret;
}

static int64_t run(const struct host *host, struct user_regs_struct *regs)
{
	return host->quiet_signal ? run_to_quiet_signal(host, regs) : run_to_yield(host, regs);
}

/*
 * Lets the agent execute the program at `program`, which ends with the quiet signal, or, where there is none, in the
 * call that does not exist.
 */
EXPORT int64_t ckpt_agent_run(const struct host *host, uint64_t area, uint64_t program, uint64_t stack)
{
	struct user_regs_struct regs = host->regs;

	regs.rip = area;
	regs.rdi = program;
	regs.rsp = stack;
	regs.orig_rax = -1;
	return run(host, &regs);
}

/* Takes the agent out: the cure itself unmaps it, under our eyes, then the task gets its registers back. */
EXPORT int64_t ckpt_agent_leave(const struct host *host, uint64_t area)
{
	struct user_regs_struct regs = host->regs;
	int64_t ret;

	forget_entered(host->tid);
	regs.rip = host->cave + 2; /* behind the first system call instruction */
	regs.rax = area;
	regs.orig_rax = -1;
	ret = set_registers(host->tid, &regs);
	if (!ret)
		ret = next_call_stop(host->tid);
	if (!ret)
		ret = next_call_stop(host->tid);
	return put_back(host) ? : ret;
}

void put_all_back(void)
{
	while (entered_count) {
		const struct entered last = entered[entered_count - 1];

		ckpt_agent_leave(&last.host, last.area);
	}
}

/* For code that hands control back by the call in ebp with the arguments r13, r14, r15. */
static void set_yield(const struct host *host, struct user_regs_struct *regs)
{
	regs->rbp = host->quiet_signal ? SYS_tgkill : AGENT_YIELD_NR;
	regs->r13 = host->pid;
	regs->r14 = host->tid;
	regs->r15 = host->quiet_signal;
	regs->orig_rax = -1;
}

#define AGENT_PROTECT 16 /* offset in start.S */
#define CODE 4096

/* Makes all but the agent's code writable: done by the agent, so that the cure still finds its memory. */
static int64_t protect(const struct host *host, uint64_t area, uint64_t length)
{
	struct user_regs_struct regs = host->regs;
	int64_t ret;

	regs.rip = area + AGENT_PROTECT;
	regs.rbx = host->cave + 2;
	regs.rdi = area + CODE;
	regs.rsi = length - CODE;
	regs.rdx = PROT_READ | PROT_WRITE;
	set_yield(host, &regs);
	ret = run(host, &regs);
	if (ret < 0)
		return ret;
	return (int64_t)regs.r12 < 0 ? fail(CAUSE_MAP_AGENT, host->tid, length, regs.r12) : 0;
}

/*
 * Maps `length` bytes of memory for the agent into a stopped task, copies the agent to its beginning, and
 * returns its address. The task stays inside until ckpt_agent_leave.
 */
EXPORT int64_t ckpt_agent_enter(const struct host *host, uint64_t length)
{
	/* Never writable and executable at once, which a program may have forbidden itself (PR_SET_MDWE). */
	const uint64_t map[6] = { 0, length, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 };
	int64_t area = 0, ret;

	if (entered_count == MOST_ENTERED)
		return fail(CAUSE_MAP_AGENT, host->tid, length, -EUSERS);
	ret = write_cure(host, length);
	if (!ret)
		ret = set_dispatch(host, &(struct dispatch){ 0 });
	if (ret < 0)
		return ret;
	ret = call_at_cave(host, SYS_mmap, map, &area);
	if (ret < 0 || (area < 0 && area >= -4095)) {
		put_back(host);
		return ret < 0 ? ret : fail(CAUSE_MAP_AGENT, host->tid, length, area);
	}
	entered[entered_count++] = (struct entered){ *host, area };
	ret = write_memory(host, area, agent_blob, agent_blob_end - agent_blob);
	if (!ret)
		ret = protect(host, area, length);
	if (ret < 0) {
		ckpt_agent_leave(host, area);
		return ret;
	}
	return area;
}

/* What lib/ffi/call_code.ts keeps in registers. */
struct call_results {
	uint64_t rbx, r12, r9;
};

static int64_t ask_thread(const struct host *host, uint64_t code, uint64_t scratch, struct call_results *results)
{
	struct user_regs_struct regs = host->regs;
	int64_t ret = write_cure(host, 0);

	if (!ret)
		ret = set_dispatch(host, &(struct dispatch){ 0 });
	/* What is pending would run the program's handlers now, and be saved as pending all the same. */
	if (!ret)
		ret = set_signal_mask(host->tid, ~0ULL);
	if (ret < 0)
		return ret;
	regs.rip = code;
	regs.rsp = scratch;
	regs.rbx = regs.r12 = regs.r9 = 0;
	set_yield(host, &regs);
	ret = run(host, &regs);
	*results = (struct call_results){ regs.rbx, regs.r12, regs.r9 };
	return put_back(host) ? : ret;
}

/*
 * Lets stopped threads of one process, one after the other, run the code that was written at `code`, which leads to
 * their cures; all have the same cave. Each has `stride` bytes for what the calls write, from `scratch` on.
 */
EXPORT int64_t ckpt_ask_threads(const struct host *hosts, uint64_t count, uint64_t code, uint64_t scratch,
				uint64_t stride, struct call_results *results)
{
	int64_t ret = 0;

	for (uint64_t i = 0; i < count && !ret; i++)
		ret = ask_thread(&hosts[i], code, scratch + i * stride, &results[i]);
	return ret;
}

struct call {
	int64_t nr;
	uint64_t args[6];
	int64_t result;
};

/* Makes some system calls in a stopped thread and puts the thread back. No memory is mapped for it. */
EXPORT int64_t ckpt_inject(const struct host *host, struct call *calls, uint64_t count)
{
	int64_t ret = write_cure(host, 0);

	if (!ret)
		ret = set_dispatch(host, &(struct dispatch){ 0 });
	if (ret < 0)
		return ret;
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = call_at_cave(host, calls[i].nr, calls[i].args, &calls[i].result);
	return put_back(host) ? : ret;
}
