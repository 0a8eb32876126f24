/*
 * The agent's program: what ckpt writes into a task and the agent there executes.
 *
 *   program  +0    struct agent_program (64 bytes)
 *            ops   struct agent_op[op_count]      64 bytes each
 *            results  int64_t[op_count]           what each call returned
 *            data     bytes: paths, structures    argument kind DATA points here
 *
 * lib/ffi/program.ts writes this layout; both must agree.
 */
#ifndef CKPT_AGENT_H
#define CKPT_AGENT_H

#include <stdint.h>

/* Argument kinds: 4 bits each in agent_op.kinds, argument 0 in the lowest bits. */
enum {
	ARG_IMMEDIATE = 0, /* the value itself */
	ARG_RESULT = 1,    /* results[value] */
	ARG_DATA = 2,      /* address of data + value */
};

enum {
	/* A failure is stored as -errno and the program goes on. */
	OP_MAY_FAIL = 1,
	/* read, pread, write, pwrite: repeated until args[2] bytes are moved; end of file is ENODATA. */
	OP_WHOLE = 2,
	/* What the call makes is a descriptor, which gets the number args[5], as by AGENT_MOVE. */
	OP_SETTLE = 4,
	/* It is closed by execve(2); else it is not. */
	OP_CLOEXEC = 8,
};

/* Calls of the agent itself; far above any number the kernel uses. */
enum {
	/* args: address, value, size (4 or 8): store a value, such as an earlier result, into memory. */
	AGENT_STORE = 0x10000,
	/* args: address of clone_args, its size, child's program: clone a task that runs another program. */
	AGENT_CLONE = 0x10001,
	/* args: bits: set these bits of the flags register; ptrace cannot set all that a program can. */
	AGENT_FLAGS = 0x10002,
	/* args: clone(2) flags: a copy of the process that never runs: stopped while it is traced, else it ends. */
	AGENT_SNAPSHOT = 0x10003,
	/*
	 * args: descriptor, address, length, offset, scratch, its size (all but the descriptor in whole pages): make memory
	 * equal to a part of a file, but write only pages that differ, so that the others stay shared with a parent or
	 * child. Returns how many were written.
	 */
	AGENT_UPDATE = 0x10004,
	/* args: address: the 8 bytes there. */
	AGENT_LOAD = 0x10005,
	/* args: descriptor, address of struct ring_count (count_ring.h): bring an io_uring to where another one was. */
	AGENT_COUNT = 0x10006,
	/* args: descriptor, number, O_CLOEXEC or 0: give it that number, and close it where it was. */
	AGENT_MOVE = 0x10007,
};

struct agent_op {
	int64_t nr;
	uint64_t args[6];
	uint32_t kinds;
	uint32_t flags;
};

struct agent_program {
	uint64_t op_count;
	uint64_t ops;     /* address */
	uint64_t results; /* address */
	uint64_t data;    /* address */
	int64_t failed;   /* index of the operation that failed, -1 for none */
	int64_t error;    /* its -errno */
	/* Where to jump when nobody traces us any more; 0: die. On dump, the host is put back there. */
	uint64_t cure;
	/* What the agent does at the end of a program: one of enum agent_yield. */
	uint64_t yield;
};

/*
 * How the agent hands control to its tracer.
 * A system call that does not exist is seen by a tracer that uses PTRACE_SYSCALL; without a tracer the kernel
 * answers ENOSYS and the agent cures its host. It costs two stops for every call of the program.
 * A signal that its host ignores and does not block stops only a traced task (sig_ignored in kernel/signal.c);
 * without a tracer nothing happens and the agent cures its host. YIELD_SIGNAL + its number; full speed.
 * SIGSTOP stops only once and touches no signal action (a breakpoint does, when SIGTRAP is blocked or ignored), but
 * is only safe where the task may die: on restore.
 */
enum agent_yield { YIELD_NOSYS = 0, YIELD_STOP = 1, YIELD_SIGNAL = 256 };

#define AGENT_YIELD_NR 0x7fff0001L

#endif
