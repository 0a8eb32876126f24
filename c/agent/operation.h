/* How one operation of a program is carried out: by the agent in a task, and by libckpt in ckpt itself. */
#ifndef CKPT_OPERATION_H
#define CKPT_OPERATION_H

#include "agent.h"
#include "raw_call.h"

#define NO_DATA 61 /* ENODATA */

static inline int64_t move_whole(int64_t nr, const uint64_t *a)
{
	uint64_t done = 0;

	while (done < a[2]) {
		int64_t n = raw_call(nr, a[0], a[1] + done, a[2] - done, a[3] + done, 0, 0);

		if (n == 0)
			return -NO_DATA;
		if (n < 0)
			return n;
		done += n;
	}
	return done;
}

/* Fills in the six arguments. */
static inline void take_arguments(const struct agent_program *program, const struct agent_op *op, uint64_t *a)
{
	for (int i = 0; i < 6; i++) {
		switch (op->kinds >> (4 * i) & 15) {
		case ARG_RESULT:
			a[i] = ((uint64_t *)program->results)[op->args[i]];
			break;
		case ARG_DATA:
			a[i] = program->data + op->args[i];
			break;
		default:
			a[i] = op->args[i];
		}
	}
}

#endif
