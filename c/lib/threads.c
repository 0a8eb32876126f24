/* What can be read of a stopped thread without running anything in it. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "ckpt.h"

#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#endif
#define GET_RSEQ_CONFIGURATION 0x420f
#define GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211

struct rseq_configuration {
	uint64_t rseq_abi_pointer;
	uint32_t rseq_abi_size;
	uint32_t signature;
	uint32_t flags;
	uint32_t pad;
};

struct dispatch_config {
	uint64_t mode;
	uint64_t selector;
	uint64_t offset;
	uint64_t len;
};

struct scheduling {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime;
	uint64_t deadline;
	uint64_t period;
	uint32_t util_min;
	uint32_t util_max;
};

/* lib/ffi/thread_state.ts reads this by the same offsets. */
struct thread_state {
	struct user_regs_struct regs;  /* 0, 216 bytes */
	uint64_t signal_mask;          /* 216 */
	uint64_t robust_list;          /* 224 */
	uint64_t robust_length;        /* 232 */
	struct rseq_configuration rseq; /* 240 */
	struct dispatch_config dispatch; /* 264 */
	struct scheduling scheduling;  /* 296, 56 bytes */
	uint8_t affinity[128];         /* 352 */
	int32_t tid;                   /* 480 */
	uint32_t affinity_length;      /* 484 */
	uint64_t xsave_length;         /* 488 */
	uint8_t xsave[];               /* 496 */
};

_Static_assert(offsetof(struct thread_state, xsave) == 496, "layout is shared with lib/ffi/thread_state.ts");

static int64_t read_thread(int32_t tid, struct thread_state *out, uint64_t xsave_room)
{
	struct iovec iov = { out->xsave, xsave_room };
	uint32_t port;
	void *head;
	size_t length;
	int64_t ret;

	out->tid = tid;
	ret = get_registers(tid, &out->regs);
	if (ret < 0)
		return ret;
	if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return fail(CAUSE_FPU, tid, 0, -errno);
	out->xsave_length = iov.iov_len;
	/* ioperm(2), iopl(2): has a regset only when it is in use (ioperm_get in arch/x86/kernel/ptrace.c). */
	iov = (struct iovec){ &port, sizeof(port) };
	if (ptrace(PTRACE_GETREGSET, tid, NT_386_IOPERM, &iov) == 0 && iov.iov_len)
		return fail(CAUSE_IO_PORTS, tid, 0, -EOPNOTSUPP);
	if (ptrace(PTRACE_GETSIGMASK, tid, 8, &out->signal_mask) < 0)
		return fail(CAUSE_SIGNAL_MASK, tid, 0, -errno);
	/* Kernels before 5.13 lack the request: then rseq cannot be in use unknown to us only if the kernel has none. */
	memset(&out->rseq, 0, sizeof(out->rseq));
	if (ptrace(GET_RSEQ_CONFIGURATION, tid, sizeof(out->rseq), &out->rseq) < 0)
		return fail(CAUSE_RSEQ, tid, 0, -errno);
	memset(&out->dispatch, 0, sizeof(out->dispatch));
	if (ptrace(GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof(out->dispatch), &out->dispatch) < 0 && errno != EIO &&
	    errno != EINVAL)
		return fail(CAUSE_DISPATCH, tid, 0, -errno);
	if (syscall(SYS_get_robust_list, tid, &head, &length) < 0)
		return fail(CAUSE_ROBUST_LIST, tid, 0, -errno);
	out->robust_list = (uint64_t)head;
	out->robust_length = length;
	if (syscall(SYS_sched_getattr, tid, &out->scheduling, sizeof(out->scheduling), 0) < 0)
		return fail(CAUSE_SCHEDULER, tid, 0, -errno);
	ret = syscall(SYS_sched_getaffinity, tid, sizeof(out->affinity), out->affinity);
	if (ret < 0)
		return fail(CAUSE_SCHEDULER, tid, 0, -errno);
	out->affinity_length = ret;
	return 0;
}

/* Fills one struct thread_state per thread, `stride` bytes apart. */
EXPORT int64_t ckpt_read_threads(const int32_t *tids, uint64_t count, uint8_t *out, uint64_t stride)
{
	for (uint64_t i = 0; i < count; i++) {
		struct thread_state *state = (void *)(out + i * stride);
		int64_t ret = read_thread(tids[i], state, stride - sizeof(*state));

		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * Copies the pending signals of a thread (shared = 0) or of its process (1), 128 bytes each, in order, without
 * taking them off the queue. Returns how many there are, at most `room`.
 */
EXPORT int64_t ckpt_peek_siginfo(int32_t tid, int32_t shared, uint8_t *out, uint64_t room)
{
	struct __ptrace_peeksiginfo_args args = { 0, shared ? PTRACE_PEEKSIGINFO_SHARED : 0, room };
	int64_t n = ptrace(PTRACE_PEEKSIGINFO, tid, &args, out);

	if (n < 0)
		return fail(CAUSE_SIGINFO, tid, 0, -errno);
	return n;
}
