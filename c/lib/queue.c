/*
 * Reads the messages of a POSIX message queue, which can only be taken out: they are put back at once. A tiny process of
 * its own does it, in the memory of ckpt: SIGKILL of ckpt does not end it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* lib/files/queue.ts has the same; the bytes follow. */
struct message {
	uint32_t priority;
	uint32_t length;
	uint8_t bytes[];
};

#define STACK 16384

struct reader {
	uint8_t stack[STACK];
	int32_t fd;
	uint8_t *messages;
	uint64_t room, size;
	int64_t result; /* how many there were, or -errno */
};

static struct message *message_at(const struct reader *reader, int64_t i)
{
	return (struct message *)(reader->messages + i * (sizeof(struct message) + reader->size));
}

/* Only raw system calls, as in guard.c. */
static int read_queue(void *arg)
{
	struct reader *reader = arg;
	int64_t count = 0, ret = 0;

	/* The end of ckpt's session or process group is no end for it. */
	raw_call(SYS_setsid, 0, 0, 0, 0, 0, 0);
	for (; (uint64_t)count < reader->room; count++) {
		struct message *m = message_at(reader, count);

		ret = raw_call(SYS_mq_timedreceive, reader->fd, (uint64_t)m->bytes, reader->size, (uint64_t)&m->priority, 0, 0);
		if (ret < 0)
			break;
		m->length = ret;
	}
	reader->result = ret < 0 && ret != -EAGAIN ? ret : count;
	for (int64_t i = 0; i < count; i++) {
		struct message *m = message_at(reader, i);

		ret = raw_call(SYS_mq_timedsend, reader->fd, (uint64_t)m->bytes, m->length, m->priority, 0, 0);
		if (ret < 0)
			reader->result = ret;
	}
	raw_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

/*
 * Reads up to `room` messages of at most `size` bytes from `fd`, which does not block, into `messages`. Gives how many
 * they are, or -errno.
 */
EXPORT int64_t ckpt_read_queue(int32_t fd, uint8_t *messages, uint64_t room, uint64_t size)
{
	uint64_t all = ~0ULL, before;
	struct reader *reader;
	int status, error;
	int64_t ret;
	pid_t pid;

	reader = mmap(NULL, sizeof(*reader), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (reader == MAP_FAILED)
		return -errno;
	reader->fd = fd;
	reader->messages = messages;
	reader->room = room;
	reader->size = size;
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&all, (uint64_t)&before, 8, 0, 0);
	pid = clone(read_queue, reader->stack + STACK, CLONE_VM | CLONE_FILES, reader);
	error = errno;
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, (uint64_t)&before, 0, 8, 0, 0);
	if (pid < 0) {
		munmap(reader, sizeof(*reader));
		return -error;
	}
	while ((ret = wait_task(pid, &status, WAIT_FOREVER)) == 0 && WIFSTOPPED(status))
		;
	if (ret >= 0)
		ret = reader->result;
	munmap(reader, sizeof(*reader));
	return ret;
}
