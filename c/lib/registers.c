/* Registers, FPU state and signal mask of a stopped task (ptrace(2)). */
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include "ckpt.h"

#ifndef PTRACE_GETSIGMASK
#define PTRACE_GETSIGMASK 0x420a
#define PTRACE_SETSIGMASK 0x420b
#endif

int64_t get_registers(pid_t tid, struct user_regs_struct *regs)
{
	struct iovec iov = { regs, sizeof(*regs) };

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return fail(CAUSE_REGISTERS, tid, 0, -errno);
	return 0;
}

int64_t set_registers(pid_t tid, const struct user_regs_struct *regs)
{
	struct iovec iov = { (void *)regs, sizeof(*regs) };

	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return fail(CAUSE_REGISTERS, tid, 0, -errno);
	return 0;
}

int64_t set_signal_mask(pid_t tid, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return fail(CAUSE_SIGNAL_MASK, tid, 0, -errno);
	return 0;
}

/*
 * Where the CPU puts each XSAVE component in the standard layout: out[2*i] offset, out[2*i+1] size, both 0 for
 * components that the CPU lacks (Intel SDM, CPUID leaf 0Dh). Returns the size of the whole area, 0 without XSAVE.
 */
EXPORT int64_t ckpt_xsave_layout(uint32_t out[128])
{
	uint32_t eax, ebx, ecx, edx;
	int64_t size;

	if (!__get_cpuid_count(1, 0, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) ||
	    !__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx))
		return 0;
	size = ebx;
	for (int i = 0; i < 64; i++) {
		uint32_t offset, length;

		__cpuid_count(0xd, i, length, offset, ecx, edx);
		/* ecx bit 0: a supervisor component, which user space never sees. */
		if (i < 2 || ecx & 1)
			offset = length = 0;
		out[2 * i] = offset;
		out[2 * i + 1] = length;
	}
	return size;
}

/*
 * How the CPU packs XSAVE components in the compacted layout: out[2*i] size, also of supervisor components, out[2*i+1]
 * whether it begins at a multiple of 64 bytes (Intel SDM, CPUID leaf 0Dh). There has to be XSAVE.
 */
EXPORT void ckpt_xsave_compaction(uint32_t out[128])
{
	for (int i = 0; i < 64; i++) {
		uint32_t eax, ebx, ecx, edx;

		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		out[2 * i] = i < 2 ? 0 : eax;
		out[2 * i + 1] = ecx >> 1 & 1;
	}
}

/* Puts a thread's FPU state (XSAVE, standard layout) in place. */
EXPORT int64_t ckpt_set_fpu(int32_t tid, const uint8_t *xsave, uint64_t length)
{
	struct iovec iov = { (void *)xsave, length };

	if (ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return fail(CAUSE_FPU, tid, 0, -errno);
	return 0;
}

EXPORT int64_t ckpt_set_registers(int32_t tid, const struct user_regs_struct *regs)
{
	return set_registers(tid, regs);
}

EXPORT int64_t ckpt_set_signal_mask(int32_t tid, uint64_t mask)
{
	return set_signal_mask(tid, mask);
}
