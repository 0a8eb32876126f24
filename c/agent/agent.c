/*
 * The agent: a machine that executes system calls in the place of the task it lives in. Freestanding, position
 * independent, no relocations, no vector registers (the host's FPU state is never touched).
 *
 * The tracer enters at offset 0 with rdi = program and rsp = a stack of the agent's own.
 */
#include "agent.h"
#include "count_ring.h"
#include "operation.h"
#include "raw_call.h"

#define NR_GETPID 39
#define NR_GETTID 186
#define NR_CLOSE 3
#define NR_CLONE 56
#define NR_FCNTL 72
#define NR_DUP3 292
#define NR_TGKILL 234
#define NR_EXIT_GROUP 231
#define NR_READ 0
#define NR_WRITE 1
#define NR_PREAD64 17
#define NR_PWRITE64 18
#define PAGE 4096
#define SIGSTOP 19
#define F_SETFD 2
#define FD_CLOEXEC 1
#define O_CLOEXEC 02000000

void agent_run(struct agent_program *program);

/* The child of a clone has a new, empty stack: it may not return, only run its own program. */
static int64_t clone_agent(uint64_t args, uint64_t size, uint64_t child_program)
{
	int64_t ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%rbx, %%rdi\n\t"
			 "call agent_run\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "0"(435L), "D"(args), "S"(size), "b"(child_program)
			 : "rcx", "r11", "memory");
	return ret;
}

static int differs(const uint64_t *a, const uint64_t *b)
{
	for (int i = 0; i < PAGE / 8; i += 4)
		if ((a[i] ^ b[i]) | (a[i + 1] ^ b[i + 1]) | (a[i + 2] ^ b[i + 2]) | (a[i + 3] ^ b[i + 3]))
			return 1;
	return 0;
}

static int64_t update(const uint64_t *a)
{
	int64_t stored = 0;

	for (uint64_t done = 0; done < a[2];) {
		uint64_t length = a[2] - done < a[5] ? a[2] - done : a[5];
		uint64_t read[] = { a[0], a[4], length, a[3] + done };
		int64_t n = move_whole(NR_PREAD64, read);

		if (n < 0)
			return n;
		for (uint64_t at = 0; at < length; at += PAGE) {
			uint64_t *to = (uint64_t *)(a[1] + done + at);
			const uint64_t *from = (const uint64_t *)(a[4] + at);

			if (!differs(to, from))
				continue;
			for (int i = 0; i < PAGE / 8; i++)
				to[i] = from[i];
			stored++;
		}
		done += length;
	}
	return stored;
}

/* Returns the number. */
static int64_t move_descriptor(int64_t from, int64_t to, uint64_t cloexec)
{
	int64_t ret;

	if (from == to) {
		ret = raw_call(NR_FCNTL, from, F_SETFD, cloexec ? FD_CLOEXEC : 0, 0, 0, 0);
		return ret < 0 ? ret : to;
	}
	ret = raw_call(NR_DUP3, from, to, cloexec, 0, 0, 0);
	raw_call(NR_CLOSE, from, 0, 0, 0, 0, 0);
	return ret;
}

static int64_t execute(struct agent_program *program, struct agent_op *op)
{
	uint64_t a[6];
	int64_t ret;

	take_arguments(program, op, a);
	switch (op->nr) {
	case AGENT_STORE:
		if (a[2] == 4)
			*(uint32_t *)a[0] = a[1];
		else
			*(uint64_t *)a[0] = a[1];
		return 0;
	case AGENT_LOAD:
		return *(int64_t *)a[0];
	case AGENT_COUNT:
		return count_ring(a[0], (struct ring_count *)a[1]);
	case AGENT_CLONE:
		return clone_agent(a[0], a[1], a[2]);
	case AGENT_SNAPSHOT: {
		int64_t pid = raw_call(NR_CLONE, a[0], 0, 0, 0, 0, 0);

		while (pid == 0)
			raw_call(NR_EXIT_GROUP, 0, 0, 0, 0, 0, 0);
		return pid;
	}
	case AGENT_UPDATE:
		return update(a);
	case AGENT_MOVE:
		return move_descriptor(a[0], a[1], a[2]);
	case AGENT_FLAGS:
		__asm__ volatile("pushfq\n\tor %0, (%%rsp)\n\tpopfq" : : "r"(a[0]) : "cc", "memory");
		return 0;
	}
	if (op->flags & OP_WHOLE)
		return move_whole(op->nr, a);
	ret = raw_call(op->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (ret >= 0 && op->flags & OP_SETTLE)
		return move_descriptor(ret, a[5], op->flags & OP_CLOEXEC ? O_CLOEXEC : 0);
	return ret;
}

static void signal_self(uint64_t signal)
{
	raw_call(NR_TGKILL, raw_call(NR_GETPID, 0, 0, 0, 0, 0, 0), raw_call(NR_GETTID, 0, 0, 0, 0, 0, 0), signal, 0, 0,
		 0);
}

__attribute__((noreturn)) static void leave(struct agent_program *program)
{
	if (program->yield == YIELD_STOP)
		signal_self(SIGSTOP);
	else if (program->yield >= YIELD_SIGNAL)
		signal_self(program->yield - YIELD_SIGNAL);
	else
		raw_call(AGENT_YIELD_NR, 0, 0, 0, 0, 0, 0);
	/* Nobody set our registers at the stop: the tracer is gone. */
	if (program->cure)
		__asm__ volatile("lea agent_entry(%%rip), %%rax\n\tjmp *%0" : : "r"(program->cure) : "rax");
	for (;;)
		raw_call(NR_EXIT_GROUP, 1, 0, 0, 0, 0, 0);
}

void agent_run(struct agent_program *program)
{
	struct agent_op *ops = (struct agent_op *)program->ops;
	int64_t *results = (int64_t *)program->results;

	for (uint64_t i = 0; i < program->op_count; i++) {
		results[i] = execute(program, &ops[i]);
		if (results[i] < 0 && results[i] >= -4095 && !(ops[i].flags & OP_MAY_FAIL)) {
			program->failed = i;
			program->error = results[i];
			break;
		}
	}
	leave(program);
}
