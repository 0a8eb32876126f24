/*
 * Programs of system calls (c/agent/agent.h) that ckpt carries out itself: many calls, such as a hundred questions
 * about a socket, for the price of one from JavaScript.
 */
#include "../agent/operation.h"
#include "ckpt.h"

/* Returns 0, or the -errno of the operation that failed, which the program names. */
EXPORT int64_t ckpt_run_own_program(struct agent_program *program)
{
	const struct agent_op *ops = (const struct agent_op *)program->ops;
	int64_t *results = (int64_t *)program->results;

	program->failed = -1;
	for (uint64_t i = 0; i < program->op_count; i++) {
		const struct agent_op *op = &ops[i];
		uint64_t a[6];

		take_arguments(program, op, a);
		results[i] = op->flags & OP_WHOLE ? move_whole(op->nr, a)
						  : raw_call(op->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (results[i] < 0 && results[i] >= -4095 && !(op->flags & OP_MAY_FAIL)) {
			program->failed = i;
			program->error = results[i];
			return results[i];
		}
	}
	return 0;
}
