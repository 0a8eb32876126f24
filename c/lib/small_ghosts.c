/*
 * Small files without a name: their contents are read, and become images. There may be thousands, of which most have
 * nothing but content, an owner, a mode and times; what else one has is left to those who look closer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* lib/ghost/save_small.ts has the same. */
struct small_ghost {
	uint32_t tid; /* it is a descriptor of that thread */
	int32_t fd;
	uint32_t id;   /* of its image */
	uint32_t size; /* bytes, less than LARGEST */
	uint64_t inode;
	uint64_t held; /* where in memory its image is kept until it is written */
	uint32_t device;
	/* What was found. */
	int32_t state; /* 0; NOT_PLAIN; -errno: its image could not be made */
	uint32_t head, image_size; /* bytes of the image before the content, and of all of it */
	uint32_t inode_flags;
	uint32_t accessed, modified; /* the rest of the times, nanoseconds below a microsecond */
	uint32_t unused;
};

enum {
	LARGEST = 12288,
	HEAD_ROOM = 128, /* before each content */
	BLOCK = 4096, /* file systems give space in such, or smaller ones */
	NOT_PLAIN = 1,
	/* Taken by a thread at a time: who begins late, or waits, shall not hold the others up. */
	AT_ONCE = 16,
};

enum step {
	READ = 1,
	WRITE = 2, /* together: nothing is held */
	IN_TURN = 4, /* by one processor */
};

struct small_ghosts {
	struct small_ghost *all;
	uint64_t count;
	int32_t images; /* their directory */
	uint32_t magics[2]; /* that an image begins with */
	uint32_t steps;
	atomic_ulong next; /* the first that nobody has taken yet */
};

#define CALL(nr, a, b, c, d) raw_call(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0, 0)

static uint8_t *put_number(uint8_t *at, uint32_t field, uint64_t value)
{
	for (*at++ = field << 3; value >= 0x80; value >>= 7)
		*at++ = value | 0x80;
	*at++ = value;
	return at;
}

static uint8_t *put_time(uint8_t *at, uint32_t field, const struct timespec *time)
{
	uint8_t *length = at + 1, *end;

	*at = field << 3 | 2;
	end = put_number(length + 1, 1, time->tv_sec);
	end = put_number(end, 2, time->tv_nsec / 1000);
	*length = end - length - 1;
	return end;
}

/* Writes what is before the content: a ghost_file_entry. Returns its length. */
static uint32_t put_head(const struct small_ghosts *job, const struct stat *status, uint8_t *out)
{
	uint8_t *at = out + 12;
	uint32_t length;

	at = put_number(at, 1, status->st_uid);
	at = put_number(at, 2, status->st_gid);
	at = put_number(at, 3, status->st_mode);
	at = put_number(at, 4, (uint32_t)status->st_dev);
	at = put_number(at, 5, status->st_ino);
	at = put_time(at, 7, &status->st_atim);
	at = put_time(at, 8, &status->st_mtim);
	length = at - out - 12;
	memcpy(out, job->magics, sizeof job->magics);
	memcpy(out + 8, &length, sizeof length);
	return at - out;
}

/* Whether there is nothing but content, without holes or room behind it. */
static int is_plain(int64_t fd, const struct stat *status)
{
	uint64_t blocks = (status->st_size + BLOCK - 1) / BLOCK;
	struct fsxattr extended = { 0 };
	int64_t attributes;

	if ((uint64_t)status->st_blocks > blocks * (BLOCK / 512))
		return 0;
	if (status->st_size &&
	    (CALL(SYS_lseek, fd, 0, SEEK_DATA, 0) || CALL(SYS_lseek, fd, 0, SEEK_HOLE, 0) != status->st_size))
		return 0;
	if (!CALL(SYS_ioctl, fd, FS_IOC_FSGETXATTR, &extended, 0) && extended.fsx_projid)
		return 0;
	attributes = CALL(SYS_flistxattr, fd, NULL, 0, 0);
	return !attributes || attributes == -EOPNOTSUPP;
}

/* Reads one that is open, its image to `held`. Returns whether all of it was to be had. */
static int read_open(const struct small_ghosts *job, struct small_ghost *ghost, int64_t fd, uint8_t *held)
{
	uint8_t *content = held + HEAD_ROOM, head[HEAD_ROOM];
	struct stat status;
	int flags = 0;

	if (CALL(SYS_fstat, fd, &status, 0, 0) || status.st_size != ghost->size || status.st_ino != ghost->inode ||
	    status.st_dev != ghost->device || status.st_nlink)
		return 0;
	/* In this order: what is read is in memory then, and no hole to some file systems, though it was never written. */
	if (!is_plain(fd, &status))
		return 0;
	/* One byte more than there should be tells that there are more. */
	if (CALL(SYS_pread64, fd, content, ghost->size + 1, 0) != ghost->size)
		return 0;
	if (CALL(SYS_ioctl, fd, FS_IOC_GETFLAGS, &flags, 0) < 0)
		flags = 0;
	ghost->head = put_head(job, &status, head);
	memcpy(content - ghost->head, head, ghost->head);
	ghost->image_size = ghost->head + ghost->size;
	ghost->inode_flags = flags;
	ghost->accessed = status.st_atim.tv_nsec % 1000;
	ghost->modified = status.st_mtim.tv_nsec % 1000;
	return 1;
}

/* The descriptors of the thread whose file was opened last: mostly the next one is of the same. */
struct source {
	uint32_t tid;
	int64_t fds;
};

static void close_source(struct source *source)
{
	if (source->fds >= 0)
		CALL(SYS_close, source->fds, 0, 0, 0);
	source->fds = -1;
}

static void read_ghost(const struct small_ghosts *job, struct small_ghost *ghost, struct source *source, uint8_t *held)
{
	char name[32];
	int64_t fd;

	if (source->fds < 0 || source->tid != ghost->tid) {
		close_source(source);
		source->tid = ghost->tid;
		snprintf(name, sizeof name, "/proc/%u/fd", ghost->tid);
		source->fds = CALL(SYS_openat, AT_FDCWD, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	}
	ghost->state = NOT_PLAIN;
	snprintf(name, sizeof name, "%d", ghost->fd);
	fd = CALL(SYS_openat, source->fds, name, O_RDONLY | O_NOATIME | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (read_open(job, ghost, fd, held))
		ghost->state = 0;
	CALL(SYS_close, fd, 0, 0, 0);
}

static void write_ghost(const struct small_ghosts *job, struct small_ghost *ghost, const uint8_t *held)
{
	const uint8_t *image = held + HEAD_ROOM - ghost->head;
	char name[32];
	int64_t fd, n = 0;

	if (ghost->state)
		return;
	snprintf(name, sizeof name, "ghost-file-%x.img", ghost->id);
	fd = CALL(SYS_openat, job->images, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		ghost->state = fd;
		return;
	}
	for (uint32_t done = 0; done < ghost->image_size; done += n) {
		n = CALL(SYS_write, fd, image + done, ghost->image_size - done, 0);
		if (n <= 0) {
			ghost->state = n ? n : -ENOSPC;
			break;
		}
	}
	n = CALL(SYS_close, fd, 0, 0, 0);
	if (n < 0)
		ghost->state = n;
}

static void take_some(void *argument, uint64_t first, uint64_t end)
{
	struct small_ghosts *job = argument;
	struct source source = { 0, -1 };
	uint8_t buffer[HEAD_ROOM + LARGEST];

	(void)first, (void)end;
	for (uint64_t i; (i = atomic_fetch_add(&job->next, AT_ONCE)) < job->count;) {
		for (uint64_t last = i + AT_ONCE; i < last && i < job->count; i++) {
			struct small_ghost *ghost = &job->all[i];
			uint8_t *held = ghost->held ? (uint8_t *)ghost->held : buffer;

			if (job->steps & READ)
				read_ghost(job, ghost, &source, held);
			if (job->steps & WRITE)
				write_ghost(job, ghost, held);
		}
	}
	close_source(&source);
}

#define CALLS_FOR_EACH 8

/*
 * Takes the steps of a job, of each file that nobody has taken yet, on several processors unless told otherwise; may be
 * called again meanwhile. Returns 0.
 */
EXPORT int64_t ckpt_save_small_ghosts(struct small_ghosts *job)
{
	if (job->steps & IN_TURN)
		take_some(job, 0, job->count);
	else
		share_rounds(job->count, CALLS_WORTH_A_THREAD / CALLS_FOR_EACH, take_some, job);
	return 0;
}
