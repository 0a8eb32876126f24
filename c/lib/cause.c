/* The last failure, for the caller to tell; and the raw system call. One call fails at a time: one record is enough. */
#include "../agent/raw_call.h"
#include "ckpt.h"

static struct cause last;

int64_t fail(enum cause_step step, pid_t tid, int64_t value, int64_t error)
{
	last = (struct cause){ step, tid, value };
	return error;
}

/* Copies the cause of the last failure. */
EXPORT void ckpt_cause(struct cause *out)
{
	*out = last;
}

EXPORT int64_t ckpt_syscall(int64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	return raw_call(nr, a, b, c, d, e, f);
}
