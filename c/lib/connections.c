/*
 * Reads TCP connections by TCP_REPAIR (tcp(7); do_tcp_getsockopt in net/ipv4/tcp.c). A socket must not stay in that
 * mode when ckpt is killed, so what does it outlives ckpt (outliving.c), and leaves every socket as it was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* include/uapi/linux/tcp.h and sockios.h */
#define TCP_MAXSEG 2
#define TCP_INFO 11
#define TCP_REPAIR 19
#define TCP_REPAIR_QUEUE 20
#define TCP_QUEUE_SEQ 21
#define TCP_TIMESTAMP 24
#define TCP_REPAIR_WINDOW 29
#define TCP_NO_QUEUE 0
#define TCP_RECV_QUEUE 1
#define TCP_SEND_QUEUE 2
#define REPAIR_ON 1
/* Sends no window probe. */
#define REPAIR_OFF_NO_WP (-1)
#define SIOCINQ 0x541b
#define SIOCOUTQ 0x5411
#define SIOCOUTQNSD 0x894b
#define SO_PEEK_OFFSET 42

#define INFO 232
/* tcpi_segs_in */
#define SEGMENTS_IN 140

/* lib/files/tcp_connection.ts has the same. */
struct connection {
	int32_t fd;
	int32_t error; /* positive; EAGAIN: something came meanwhile; EBADMSG: an urgent byte is among what was not read */
	uint32_t in_sequence;
	uint32_t out_sequence;
	uint32_t in_length;
	uint32_t out_length; /* what was to be read, also what is acknowledged already */
	uint32_t out_queued; /* SIOCOUTQ */
	uint32_t unsent;
	uint32_t mss_clamp;
	uint32_t timestamp;
	uint32_t window[5];
	uint32_t in_room;
	uint64_t in;  /* address */
	uint64_t out; /* address */
	uint32_t out_room;
	uint32_t unused;
	uint8_t info[INFO];
};

struct reader {
	struct connection *connections;
	uint64_t count;
};

static int64_t get(int fd, int level, int name, void *value, uint32_t length)
{
	return raw_call(SYS_getsockopt, fd, level, name, (uint64_t)value, (uint64_t)&length, 0);
}

static int64_t set(int fd, int level, int name, int32_t value)
{
	return raw_call(SYS_setsockopt, fd, level, name, (uint64_t)&value, sizeof(value), 0);
}

static int64_t peek(int fd, uint64_t to, uint32_t room)
{
	if (room == 0)
		return 0;
	return raw_call(SYS_recvfrom, fd, to, room, MSG_PEEK | MSG_DONTWAIT, 0, 0);
}

/* Bytes that were not read, also those behind one that was sent with MSG_OOB, where all else ends. */
static int64_t count_received(int fd, int32_t *in)
{
	int32_t inline_bytes = 0;
	int64_t ret = get(fd, SOL_SOCKET, SO_OOBINLINE, &inline_bytes, 4);

	if (ret < 0 || inline_bytes)
		return ret < 0 ? ret : raw_call(SYS_ioctl, fd, SIOCINQ, (uint64_t)in, 0, 0, 0);
	if ((ret = set(fd, SOL_SOCKET, SO_OOBINLINE, 1)) < 0)
		return ret;
	ret = raw_call(SYS_ioctl, fd, SIOCINQ, (uint64_t)in, 0, 0, 0);
	set(fd, SOL_SOCKET, SO_OOBINLINE, 0);
	return ret;
}

static int64_t read_queues(struct connection *c)
{
	int64_t ret;
	int32_t in = 0, all = 0, out = 0, unsent = 0;

	if ((ret = raw_call(SYS_ioctl, c->fd, SIOCINQ, (uint64_t)&in, 0, 0, 0)) < 0 ||
	    (ret = raw_call(SYS_ioctl, c->fd, SIOCOUTQ, (uint64_t)&out, 0, 0, 0)) < 0 ||
	    (ret = raw_call(SYS_ioctl, c->fd, SIOCOUTQNSD, (uint64_t)&unsent, 0, 0, 0)) < 0)
		return ret;
	if ((ret = count_received(c->fd, &all)) < 0)
		return ret;
	if (all != in)
		return -EBADMSG;
	c->out_queued = out;
	c->unsent = unsent;
	if ((uint32_t)in > c->in_room)
		return -EAGAIN;
	if ((ret = set(c->fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)) < 0 ||
	    (ret = get(c->fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &c->in_sequence, 4)) < 0)
		return ret;
	ret = peek(c->fd, c->in, in);
	if (ret < 0)
		return ret;
	if (ret != in)
		return -EAGAIN;
	c->in_length = ret;
	if ((ret = set(c->fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)) < 0 ||
	    (ret = get(c->fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &c->out_sequence, 4)) < 0)
		return ret;
	if (out > 0 && c->out_room < (uint32_t)out)
		return -EAGAIN;
	if (out > 0) {
		/* All of every buffer is copied, or EFAULT. */
		ret = peek(c->fd, c->out, c->out_room);
		if (ret == -EFAULT)
			ret = -EAGAIN;
		if (ret < 0)
			return ret;
		c->out_length = ret;
	}
	return 0;
}

static int64_t read_repaired(struct connection *c)
{
	int64_t ret = read_queues(c);

	if (ret < 0)
		return ret;
	if ((ret = get(c->fd, IPPROTO_TCP, TCP_MAXSEG, &c->mss_clamp, 4)) < 0 ||
	    (ret = get(c->fd, IPPROTO_TCP, TCP_TIMESTAMP, &c->timestamp, 4)) < 0 ||
	    (ret = get(c->fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, c->window, sizeof(c->window))) < 0)
		return ret;
	return get(c->fd, IPPROTO_TCP, TCP_INFO, c->info, INFO);
}

static int64_t read_one(struct connection *c)
{
	int32_t reuse = 0, offset = -1;
	int64_t ret;

	get(c->fd, SOL_SOCKET, SO_REUSEADDR, &reuse, 4);
	get(c->fd, SOL_SOCKET, SO_PEEK_OFFSET, &offset, 4);
	ret = set(c->fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_ON);
	if (ret < 0)
		return ret;
	if (offset >= 0)
		set(c->fd, SOL_SOCKET, SO_PEEK_OFFSET, -1);
	ret = read_repaired(c);
	if (offset >= 0)
		set(c->fd, SOL_SOCKET, SO_PEEK_OFFSET, offset);
	set(c->fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_WP);
	/* Which has turned it off. */
	if (reuse)
		set(c->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return ret;
}

static int is_same(const struct connection *c)
{
	uint8_t info[INFO];

	return get(c->fd, IPPROTO_TCP, TCP_INFO, info, INFO) >= 0 && info[0] == c->info[0] &&
	       *(uint32_t *)(info + SEGMENTS_IN) == *(const uint32_t *)(c->info + SEGMENTS_IN);
}

static void read_all(void *arg)
{
	const struct reader *reader = arg;

	for (uint64_t i = 0; i < reader->count; i++) {
		struct connection *c = &reader->connections[i];
		int64_t ret = read_one(c);

		c->error = ret < 0 ? -ret : 0;
	}
	/* What was on its way when the network was locked has arrived by now. */
	for (uint64_t i = 0; i < reader->count; i++) {
		struct connection *c = &reader->connections[i];

		if (c->error == 0 && !is_same(c))
			c->error = EAGAIN;
	}
}

/* Reads all connections, into the room that each has; `error` tells of each whether it could be. */
EXPORT int64_t ckpt_read_connections(struct connection *connections, uint64_t count)
{
	struct reader reader = { connections, count };
	int64_t ret = run_outliving(read_all, &reader);

	return ret < 0 ? fail(CAUSE_START_OUTLIVING, 0, count, ret) : 0;
}
