/*
 * libckpt: what ckpt needs done in a tight loop, or that JavaScript cannot do: ptrace, page copies, starting a
 * task. Every function returns a value >= 0 or -errno and says in `ckpt_cause` what it was doing; nothing is
 * printed. lib/ffi holds the types on the other side; both must agree.
 */
#ifndef CKPT_H
#define CKPT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#define EXPORT __attribute__((visibility("default")))

/* What was being done when a function failed. lib/ffi/cause.ts turns these into words. */
enum cause_step {
	CAUSE_NONE = 0,
	CAUSE_LIST_THREADS = 1,
	CAUSE_SEIZE = 2,
	CAUSE_INTERRUPT = 3,
	CAUSE_WAIT = 4,
	CAUSE_GONE = 5, /* value: wait status */
	CAUSE_REGISTERS = 6,
	CAUSE_SIGNAL_MASK = 7,
	CAUSE_RESUME = 8,
	CAUSE_WRITE_MEMORY = 9,
	CAUSE_READ_MEMORY = 10,
	CAUSE_MAP_AGENT = 11,
	CAUSE_AGENT_STOP = 12, /* value: wait status */
	CAUSE_AGENT_CALL = 13, /* value: index of the operation */
	CAUSE_FPU = 14,
	CAUSE_RSEQ = 15,
	CAUSE_ROBUST_LIST = 16,
	CAUSE_SCHEDULER = 17,
	CAUSE_DISPATCH = 18,
	CAUSE_PAGEMAP = 19,
	CAUSE_WRITE_IMAGE = 20,
	CAUSE_OUT_OF_MEMORY = 21,
	CAUSE_START_AGENT = 22,
	CAUSE_READ_CONTENT = 23,
	CAUSE_SIGINFO = 24,
	CAUSE_IO_PORTS = 25,
	CAUSE_READ_IMAGE = 26,
	CAUSE_START_GUARD = 27,
	CAUSE_START_OUTLIVING = 28,
	CAUSE_START_TRACER = 29,
	CAUSE_TRACER = 30,
	CAUSE_ENTER = 31,
	CAUSE_START_THREAD = 32,
};

struct cause {
	int32_t step;
	int32_t tid;
	int64_t value;
};

/* Records the cause and returns `error` (a -errno). */
int64_t fail(enum cause_step step, pid_t tid, int64_t value, int64_t error);

/* The last one; for a caller that goes on working before it returns. */
void ckpt_cause(struct cause *out);

/* wait.c: the only place that waits for a task. */
#define WAIT_FOREVER (-1)
int64_t wait_task(pid_t tid, int *status, int timeout_ms);
int64_t wait_single_task(pid_t tid, int *status);

int64_t await_end(pid_t tid);

/* Whether a task has ended, though its status may not be to be had yet. */
int has_ended(pid_t tid);

/*
 * share.c: calls `work` for parts of so many rounds, in threads; it is over when all are. A thread is not worth it for
 * fewer rounds than `worth`; of calls it has to make that many.
 */
#define CALLS_WORTH_A_THREAD 256
typedef void share_work(void *argument, uint64_t first, uint64_t end);
void share_rounds(uint64_t rounds, uint64_t worth, share_work *work, void *argument);

/* sha256.c */
#define SHA256_BYTES 32
void ckpt_sha256(const uint8_t *bytes, uint64_t length, uint8_t *digest, uint32_t portable);

/* outliving.c */
int64_t start_beside(int (*run)(void *), uint8_t *stack_end, int flags, void *argument, int32_t *pidfd);
int64_t run_outliving(void (*work)(void *), void *argument);

/* tracer.c: whether this is the process that traces for ckpt, and ckpt is gone. */
int is_abandoned(void);

/* remote.c: takes the agent out of all tasks that it is in. */
void put_all_back(void);

/* interrupted_call.c */
void mend_interrupted_call(pid_t tid);

#define STATUS_EVENT(status) ((status) >> 16)
#define SYSCALL_STOP (SIGTRAP | 0x80)

/* registers.c */
int64_t get_registers(pid_t tid, struct user_regs_struct *regs);
int64_t set_registers(pid_t tid, const struct user_regs_struct *regs);
int64_t set_signal_mask(pid_t tid, uint64_t mask);

extern const uint8_t agent_blob[], agent_blob_end[], agent_elf[], agent_elf_end[], enter_elf[], enter_elf_end[];

#endif
