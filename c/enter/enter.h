/* What the program of enter.c is told, and what it is asked. lib/ns/enter.ts and inside.ts have the same. */
#ifndef CKPT_ENTER_H
#define CKPT_ENTER_H

#include <stdint.h>

/* The numbers in its second argument. */
enum parameter {
	BINARY, /* descriptor of the file of ckpt */
	TARGET, /* pidfd of the root of a tree; or the file of the agent, where a new root is to be started */
	FLAGS, /* CLONE_NEW*: the namespaces to enter, or to make */
	PARENT, /* enum enter_parent */
	OWN_PID, /* of the ckpt inside; 0: any */
	ROOT_INSIDE, /* pid of the root, as it is seen inside */
	ROOT_OUTSIDE, /* and by us; of a new one it is not known yet */
	DIRECTORY, /* descriptor of our root directory, which leads the ckpt inside to our mounts */
	PARAMETERS,
};

/* Whose child the new root is. */
enum enter_parent {
	PARENT_US = 0,
	PARENT_OURS = 1,
	PARENT_NOBODY = 2,
	PARENT_OF_NONE = 3, /* there is none to be started */
};

/*
 * The environment of the ckpt inside has: descriptor of the channel, lifeline of the agent (-1: none), pid of the root
 * inside and outside, FLAGS, DIRECTORY, and the ids of our own namespaces; or "error STEP ERRNO".
 */
#define VARIABLE "CKPT_INSIDE"

enum enter_step {
	STEP_JOIN = 1,
	STEP_FORK = 2,
	STEP_MOUNT_PROC = 3,
	STEP_CHOOSE_PID = 4,
	STEP_EXECUTE = 5,
	STEP_CLOCKS = 6,
	STEP_MAKE = 7,
};

enum message_kind {
	MESSAGE_ENDING = 1, /* the root ends with the ckpt inside, or takes it along; the value is what to exit with then */
	MESSAGE_RELEASED = 2, /* the tree is about to run, or does; the value is of those below. The last one counts. */
};

enum released {
	RELEASED_WAIT = 1, /* wait for its end, too */
	RELEASED_PASS_TERMINAL = 2, /* hand signals of the terminal on to it, too */
};

#define MESSAGE_TEXT 16384

struct message {
	int32_t kind, value;
	/*
	 * What to print before and after an exit status, and before and after the number of a signal; each ends with a
	 * zero. Where nobody waits: the first, when the ckpt inside could not print it any more.
	 */
	char texts[MESSAGE_TEXT];
};

#endif
