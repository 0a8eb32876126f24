/*
 * Reads the messages of a POSIX message queue, which can only be taken out: they are put back at once, by a process that
 * SIGKILL of ckpt does not end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* lib/files/queue.ts has the same; the bytes follow. */
struct message {
	uint32_t priority;
	uint32_t length;
	uint8_t bytes[];
};

struct reader {
	int32_t fd;
	uint8_t *messages;
	uint64_t room, size;
	int64_t result; /* how many there were, or -errno */
};

static struct message *message_at(const struct reader *reader, int64_t i)
{
	return (struct message *)(reader->messages + i * (sizeof(struct message) + reader->size));
}

static void read_queue(void *arg)
{
	struct reader *reader = arg;
	int64_t count = 0, ret = 0;

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
}

/*
 * Reads up to `room` messages of at most `size` bytes from `fd`, which does not block, into `messages`. Gives how many
 * they are, or -errno.
 */
EXPORT int64_t ckpt_read_queue(int32_t fd, uint8_t *messages, uint64_t room, uint64_t size)
{
	struct reader reader = { .fd = fd, .messages = messages, .room = room, .size = size };
	int64_t ret = run_outliving(read_queue, &reader);

	return ret < 0 ? ret : reader.result;
}
