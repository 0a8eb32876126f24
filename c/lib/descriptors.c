/*
 * What the kernel tells of all descriptors of a process, and which of them share an open file description: thousands
 * of both are looked at while a program stands still.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

/* One descriptor; lib/files/descriptor_facts.ts reads it. */
struct seen_descriptor {
	int32_t fd;
	int32_t error; /* -errno of what was not told; -ENOBUFS: there is not enough room for its text */
	/* What is the same as long as nothing has changed. */
	uint64_t dev, ino, nlink, rdev, size, blocks; /* of stat(2) */
	uint32_t mode, uid, gid;
	uint32_t flags; /* as fdinfo has them: with O_CLOEXEC */
	int64_t pos;
	uint64_t inode; /* that fdinfo tells (since Linux 5.14) */
	int32_t mount;
	uint32_t known; /* enum known */
	uint64_t busy_polling; /* struct epoll_params */
	uint32_t link_length, details_length;
	/* What is not. */
	uint64_t text; /* where its link is in the text; the lines of fdinfo behind the first ones follow */
	uint64_t looks; /* the same for all descriptors of one description */
	int32_t same; /* index in the earlier table of what has not changed; -1 */
	int32_t unused;
};

enum known {
	KNOWS_INODE = 1,
	KNOWS_STATUS = 2, /* not of a file below /proc whose task is gone */
	KNOWS_OWNER = 4, /* whether somebody gets signals about it */
	HAS_OWNER = 8,
};

#define FIRST_THAT_COUNTS offsetof(struct seen_descriptor, dev)
#define LAST_THAT_COUNTS offsetof(struct seen_descriptor, text)

struct look {
	int32_t links, infos, pidfd; /* directories of /proc, and the process */
	struct seen_descriptor *seen;
	uint8_t *text;
	uint64_t room; /* bytes of text for each descriptor */
	const struct seen_descriptor *earlier;
	uint64_t earlier_count;
	const uint8_t *earlier_text;
};

#define CALL(nr, a, b, c, d) raw_call(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0, 0)

/* Takes "KEY:\t" and a number with its newline. Returns what follows; NULL when it is something else. */
static const char *take_number(const char *at, const char *end, const char *key, int base, uint64_t *out)
{
	size_t length = strlen(key);
	int negative;
	const char *first;

	if (!at || (size_t)(end - at) < length || memcmp(at, key, length))
		return NULL;
	at += length;
	negative = at < end && *at == '-';
	at += negative;
	*out = 0;
	for (first = at; at < end && *at >= '0' && *at < '0' + base; at++)
		*out = *out * base + (*at - '0');
	if (at == first || at == end || *at != '\n')
		return NULL;
	if (negative)
		*out = -*out;
	return at + 1;
}

/* Reads fdinfo to `room`, and leaves only the lines there that are not the same for all kinds. */
static int64_t read_info(const struct look *look, const char *name, struct seen_descriptor *seen, char *room,
			 uint64_t size)
{
	int64_t fd = CALL(SYS_openat, look->infos, name, O_RDONLY | O_CLOEXEC, 0);
	const char *rest, *end, *behind;
	uint64_t length = 0, asked, pos, flags, mount;
	int64_t n;

	if (fd < 0)
		return fd;
	/* The whole is made at the first read(2), so that less than was asked for is the end (seq_file). */
	do {
		asked = size - length;
		n = CALL(SYS_read, fd, room + length, asked, 0);
		if (n > 0)
			length += n;
	} while (n > 0 && (uint64_t)n == asked);
	CALL(SYS_close, fd, 0, 0, 0);
	if (n < 0)
		return n;
	if (length == size)
		return -ENOBUFS;
	end = room + length;
	rest = take_number(room, end, "pos:\t", 10, &pos);
	rest = take_number(rest, end, "flags:\t", 8, &flags);
	rest = take_number(rest, end, "mnt_id:\t", 10, &mount);
	if (!rest)
		return -EINVAL;
	behind = take_number(rest, end, "ino:\t", 10, &seen->inode);
	if (behind) {
		rest = behind;
		seen->known |= KNOWS_INODE;
	}
	seen->pos = pos;
	seen->flags = flags;
	seen->mount = mount;
	seen->details_length = end - rest;
	memmove(room, rest, end - rest);
	return 0;
}

static const char EPOLL[] = "anon_inode:[eventpoll]";
/* _IOR(0x8A, 0x02, struct epoll_params), since Linux 6.9 */
#define EPIOCGPARAMS 0x80088a02

/* What only a descriptor of ckpt's own can be asked. */
static void ask_own(int64_t fd, struct seen_descriptor *seen, int is_epoll)
{
	struct f_owner_ex owner = { 0 };
	int64_t got, signal;

	got = CALL(SYS_fcntl, fd, F_GETOWN_EX, &owner, 0);
	signal = CALL(SYS_fcntl, fd, F_GETSIG, 0, 0);
	if (got >= 0 && signal >= 0)
		seen->known |= KNOWS_OWNER | (signal || owner.pid ? HAS_OWNER : 0);
	if (is_epoll && CALL(SYS_ioctl, fd, EPIOCGPARAMS, &seen->busy_polling, 0) < 0)
		seen->busy_polling = 0;
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t length)
{
	for (const uint8_t *at = bytes; length--; at++)
		hash = (hash ^ *at) * 0x100000001b3;
	return hash;
}

/* All that the descriptors of one description have in common, and that may tell it from others. */
static uint64_t looks_of(const struct seen_descriptor *seen, const uint8_t *text)
{
	const char *details = (const char *)text + seen->link_length;
	uint32_t flags = seen->flags & ~O_CLOEXEC;
	const char *id = memmem(details, seen->details_length, "eventfd-id:", 11);
	uint64_t hash = mix(0xcbf29ce484222325, text, seen->link_length);

	hash = mix(hash, &flags, sizeof flags);
	hash = mix(hash, &seen->pos, sizeof seen->pos);
	hash = mix(hash, &seen->mount, sizeof seen->mount);
	hash = mix(hash, &seen->ino, sizeof seen->ino);
	if (id)
		hash = mix(hash, id, (const char *)memchr(id, '\n', details + seen->details_length - id) - id);
	return hash;
}

/* @own: a descriptor of ckpt's own for the same; -errno */
static int64_t look_at_it(const struct look *look, int64_t own, struct seen_descriptor *seen, char *room, uint64_t size)
{
	char name[16];
	struct stat status;
	int64_t ret;

	snprintf(name, sizeof name, "%d", seen->fd);
	ret = CALL(SYS_readlinkat, look->links, name, room, size);
	if (ret < 0)
		return ret;
	if ((uint64_t)ret == size)
		return -ENOBUFS;
	seen->link_length = ret;
	/* What has no path is asked directly, which is faster. */
	ret = own >= 0 && *room != '/' ? CALL(SYS_fstat, own, &status, 0, 0) :
					 CALL(SYS_newfstatat, look->links, name, &status, 0);
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (!ret) {
		seen->known |= KNOWS_STATUS;
		seen->dev = status.st_dev;
		seen->ino = status.st_ino;
		seen->nlink = status.st_nlink;
		seen->rdev = status.st_rdev;
		seen->size = status.st_size;
		seen->blocks = status.st_blocks;
		seen->mode = status.st_mode;
		seen->uid = status.st_uid;
		seen->gid = status.st_gid;
	}
	ret = read_info(look, name, seen, room + seen->link_length, size - seen->link_length);
	if (ret < 0)
		return ret;
	if (own >= 0 && !(seen->flags & O_PATH))
		ask_own(own, seen, seen->link_length == sizeof EPOLL - 1 && !memcmp(room, EPOLL, sizeof EPOLL - 1));
	return 0;
}

static int64_t look_at_one(const struct look *look, struct seen_descriptor *seen, char *room, uint64_t size)
{
	int64_t own = CALL(SYS_pidfd_getfd, look->pidfd, seen->fd, 0, 0);
	int64_t ret = look_at_it(look, own, seen, room, size);

	if (own >= 0)
		CALL(SYS_close, own, 0, 0, 0);
	return ret;
}

/* The index in the earlier table of a descriptor of which all is as it was; -1: none. */
static int32_t find_same(const struct look *look, const struct seen_descriptor *seen)
{
	uint64_t low = 0, high = look->earlier_count;

	while (low < high) {
		uint64_t middle = (low + high) / 2;
		const struct seen_descriptor *other = &look->earlier[middle];

		if (other->fd < seen->fd)
			low = middle + 1;
		else if (other->fd > seen->fd)
			high = middle;
		else
			return other->error || memcmp((const char *)other + FIRST_THAT_COUNTS, (const char *)seen + FIRST_THAT_COUNTS,
				      LAST_THAT_COUNTS - FIRST_THAT_COUNTS) ||
					       memcmp(look->earlier_text + other->text, look->text + seen->text,
						      seen->link_length + seen->details_length) ?
				       -1 :
				       (int32_t)middle;
	}
	return -1;
}

static void look_at_some(void *argument, uint64_t first, uint64_t end)
{
	const struct look *look = argument;
	uint64_t at = first * look->room;

	for (uint64_t i = first; i < end; i++) {
		struct seen_descriptor *seen = &look->seen[i];

		*seen = (struct seen_descriptor){ .fd = seen->fd, .text = at, .same = -1 };
		seen->error = look_at_one(look, seen, (char *)look->text + at, end * look->room - at);
		if (seen->error)
			continue;
		seen->looks = looks_of(seen, look->text + at);
		seen->same = find_same(look, seen);
		at += seen->link_length + seen->details_length;
	}
}

#define CALLS_FOR_EACH 8

/* Fills in `count` descriptors of `seen`, of which the numbers are there. Returns 0. */
EXPORT int64_t ckpt_look_at_descriptors(struct look *look, uint64_t count)
{
	share_rounds(count, CALLS_WORTH_A_THREAD / CALLS_FOR_EACH, look_at_some, look);
	return 0;
}

/* An open file description, by the descriptor it was first seen with. */
struct description {
	uint64_t looks;
	int32_t pid, fd;
	/* A tree in the order of looks, and of the kernel where these are the same; those above have lower priority. */
	uint32_t left, right, priority, unused;
};

struct search {
	struct description *all; /* [0] is none; its `left` is the root */
	uint32_t count, found;
	uint64_t looks;
	int32_t pid, fd;
	int64_t error;
};

#define KCMP_FILE 0

/* Negative: the wanted one comes before. */
static int compare(struct search *search, const struct description *other)
{
	int64_t answer;

	if (search->looks != other->looks)
		return search->looks < other->looks ? -1 : 1;
	answer = raw_call(SYS_kcmp, search->pid, other->pid, KCMP_FILE, search->fd, other->fd, 0);
	if (answer < 0)
		search->error = answer;
	return answer == 0 ? 0 : answer == 1 ? -1 : 1;
}

/* Finds it below `at`, or adds it. Returns what is there then. */
static uint32_t find_below(struct search *search, uint32_t at)
{
	struct description *here = &search->all[at], *child;
	uint32_t below;
	int order;

	if (!at) {
		at = search->found = search->count++;
		search->all[at] = (struct description){ search->looks, search->pid, search->fd, 0, 0,
							(uint32_t)(at * 0x9e3779b97f4a7c15 >> 32), 0 };
		return at;
	}
	order = compare(search, here);
	if (search->error)
		return at;
	if (!order) {
		search->found = at;
		return at;
	}
	below = find_below(search, order < 0 ? here->left : here->right);
	child = &search->all[below];
	if (below && child->priority < here->priority) {
		if (order < 0) {
			here->left = child->right;
			child->right = at;
		} else {
			here->right = child->left;
			child->left = at;
		}
		return below;
	}
	if (order < 0)
		here->left = below;
	else
		here->right = below;
	return at;
}

/*
 * Finds for each descriptor of a process the description behind it among `known` others, of which the first stands
 * for none; new ones are added, for which there has to be room. `found` gets their indices. Returns how many there
 * are then; -errno when one was closed meanwhile.
 */
EXPORT int64_t ckpt_find_descriptions(struct description *all, uint64_t known, int32_t pid,
				      const struct seen_descriptor *seen, uint64_t count, uint32_t *found)
{
	struct search search = { .all = all, .count = known, .pid = pid };

	for (uint64_t i = 0; i < count; i++) {
		search.looks = seen[i].looks;
		search.fd = seen[i].fd;
		all[0].left = find_below(&search, all[0].left);
		if (search.error)
			return search.error;
		found[i] = search.found;
	}
	return search.count;
}
