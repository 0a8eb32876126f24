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
#include <sys/socket.h>
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
	uint64_t file; /* where the kernel has the description, which no other one has at the same time; 0: not known */
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
	const uint8_t *records; /* struct open_file at each of the places; NULL: the kernel has to be asked */
	const uint32_t *places;
	uint64_t stands_still;
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

static int is_epoll(const char *link, const struct seen_descriptor *seen)
{
	return seen->link_length == sizeof EPOLL - 1 && !memcmp(link, EPOLL, sizeof EPOLL - 1);
}

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
static int64_t ask_status(const struct look *look, int64_t own, struct seen_descriptor *seen, int has_path)
{
	char name[16];
	struct stat status;
	int64_t ret;

	snprintf(name, sizeof name, "%d", seen->fd);
	/* What has no path is asked directly, which is faster. */
	ret = own >= 0 && !has_path ? CALL(SYS_fstat, own, &status, 0, 0) :
				      CALL(SYS_newfstatat, look->links, name, &status, 0);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
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
	return 0;
}

static int64_t look_at_it(const struct look *look, int64_t own, struct seen_descriptor *seen, char *room, uint64_t size)
{
	char name[16];
	int64_t ret;

	snprintf(name, sizeof name, "%d", seen->fd);
	ret = CALL(SYS_readlinkat, look->links, name, room, size);
	if (ret < 0)
		return ret;
	if ((uint64_t)ret == size)
		return -ENOBUFS;
	seen->link_length = ret;
	ret = ask_status(look, own, seen, *room == '/');
	if (ret)
		return ret;
	ret = read_info(look, name, seen, room + seen->link_length, size - seen->link_length);
	if (ret < 0)
		return ret;
	if (own >= 0 && !(seen->flags & O_PATH))
		ask_own(own, seen, is_epoll(room, seen));
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

/* What a BPF program tells of an open file; lib/files/open_files.ts has it. All addresses are of the kernel. */
struct open_file {
	uint64_t file;
	int64_t pos;
	uint64_t inode, mount, dentry;
	uint64_t ino, size, blocks;
	uint64_t getattr; /* 0: stat(2) tells what the inode has (generic_fillattr) */
	uint64_t show_info; /* 0: it has no lines of its own in fdinfo */
	uint64_t locks; /* 0: its inode has none */
	uint64_t owner; /* 0: nobody gets signals about it */
	uint64_t socket_show_info; /* the same as show_info, which all sockets have */
	uint64_t close_on_exec; /* the word with its bit */
	uint32_t fd, flags, mount_id, dev, rdev, uid, gid, nlink, mode;
	uint32_t socket_type, socket_family, socket_state, in_flight;
	uint32_t link_length; /* with its zero; 0: something could not be read */
	uint64_t count; /* of an eventfd, or the signals that a signalfd does not take */
	uint32_t event_flags;
	int32_t event_id;
	char link[];
};

/* dev_t as stat(2) gives it. */
static uint64_t device(uint32_t kernel)
{
	uint64_t major = kernel >> 20, minor = kernel & 0xfffff;

	return (minor & 0xff) | major << 8 | (minor & ~0xffULL) << 12;
}

/* Lines of fdinfo that can be made from a record, in the forms that kernels give them. */
enum form {
	FORM_UNIX,
	FORM_EVENTFD,
	FORM_EVENTFD_BEFORE_6_5,
	FORM_SIGNALFD,
	FORM_COUNT,
};
enum trust {
	UNTRIED,
	RIGHT,
	WRONG,
};

#define STATUSES 2048
/* What was asked for, and need not be again. */
struct asked {
	/* Index + 1 of a status: of equal paths, and of what is the same object without a path. */
	uint32_t statuses[STATUSES];
	enum trust forms[FORM_COUNT];
};

static void copy_status(struct seen_descriptor *seen, const struct seen_descriptor *from)
{
	seen->known |= KNOWS_STATUS;
	seen->dev = from->dev;
	seen->ino = from->ino;
	seen->nlink = from->nlink;
	seen->rdev = from->rdev;
	seen->size = from->size;
	seen->blocks = from->blocks;
	seen->mode = from->mode;
	seen->uid = from->uid;
	seen->gid = from->gid;
}

static const struct open_file *record_of(const struct look *look, uint64_t i)
{
	return (const struct open_file *)(look->records + look->places[i]);
}

static uint64_t object_of(const struct open_file *file)
{
	return *file->link == '/' ? file->dentry : file->inode;
}

static int64_t find_status(const struct look *look, struct asked *asked, uint64_t i)
{
	const struct open_file *file = record_of(look, i);
	struct seen_descriptor *seen = &look->seen[i];
	uint32_t *at = &asked->statuses[(object_of(file) * 0x9e3779b97f4a7c15) >> 53];
	int64_t ret;

	if (*at) {
		const struct open_file *other = record_of(look, *at - 1);

		if (object_of(other) == object_of(file) && other->mount == file->mount) {
			copy_status(seen, &look->seen[*at - 1]);
			return 0;
		}
	}
	ret = ask_status(look, -1, seen, *file->link == '/');
	if (!ret && seen->known & KNOWS_STATUS)
		*at = i + 1;
	return ret;
}

#define ESTABLISHED 1 /* TCP_ESTABLISHED, also of Unix sockets */

static int is_link(const struct open_file *file, const char *link)
{
	return !strcmp(file->link, link);
}

/* @wanted: of an eventfd. Returns FORM_COUNT for what only the kernel can tell. */
static enum form form_of(const struct open_file *file, enum form wanted)
{
	if (file->locks)
		return FORM_COUNT;
	if (S_ISSOCK(file->mode) && file->socket_family == AF_UNIX &&
	    (file->socket_type == SOCK_DGRAM || file->socket_state == ESTABLISHED))
		return FORM_UNIX;
	if (is_link(file, "anon_inode:[eventfd]"))
		return wanted;
	return is_link(file, "anon_inode:[signalfd]") ? FORM_SIGNALFD : FORM_COUNT;
}

/* As snprintf. */
static int write_form(const struct open_file *file, enum form form, char *room, uint64_t size)
{
	switch (form) {
	case FORM_UNIX: /* unix_show_fdinfo() */
		return snprintf(room, size, "scm_fds: %u\n", file->in_flight);
	case FORM_EVENTFD: /* eventfd_show_fdinfo() */
		return snprintf(room, size, "eventfd-count: %16lx\neventfd-id: %d\neventfd-semaphore: %d\n", file->count,
				file->event_id, file->event_flags & 1);
	case FORM_EVENTFD_BEFORE_6_5:
		return snprintf(room, size, "eventfd-count: %16lx\neventfd-id: %d\n", file->count, file->event_id);
	default: /* signalfd_show_fdinfo() */
		return snprintf(room, size, "sigmask:\t%016lx\n", ~file->count);
	}
}

#define LONGEST_FORM 128

/* The lines of fdinfo that only some kinds have. Of each form the first is asked for, and tells whether it is right. */
static int64_t find_details(const struct look *look, struct asked *asked, const struct open_file *file,
			    struct seen_descriptor *seen, char *room, uint64_t size)
{
	char name[16], made[LONGEST_FORM];
	enum form form;
	int64_t ret;

	if (!file->locks && (!file->show_info || (S_ISSOCK(file->mode) && !file->socket_show_info)))
		return 0;
	form = form_of(file, asked->forms[FORM_EVENTFD] == WRONG ? FORM_EVENTFD_BEFORE_6_5 : FORM_EVENTFD);
	if (form < FORM_COUNT && asked->forms[form] == RIGHT) {
		seen->details_length = write_form(file, form, room, size);
		return seen->details_length < size ? 0 : -ENOBUFS;
	}
	snprintf(name, sizeof name, "%d", seen->fd);
	ret = read_info(look, name, seen, room, size);
	if (!ret && form < FORM_COUNT && asked->forms[form] == UNTRIED) {
		uint64_t length = write_form(file, form, made, sizeof made);

		asked->forms[form] = length == seen->details_length && !memcmp(made, room, length) ? RIGHT : WRONG;
	}
	return ret;
}

/* Takes what the program tells where that is what the kernel would answer, and asks for the rest. */
static int64_t look_at_record(const struct look *look, struct asked *asked, uint64_t i, char *room, uint64_t size)
{
	const struct open_file *file = record_of(look, i);
	struct seen_descriptor *seen = &look->seen[i];
	int64_t own, ret = 0;
	int epoll;

	if (!file->link_length || !file->mount_id)
		return look_at_one(look, seen, room, size);
	seen->link_length = file->link_length - 1;
	if (seen->link_length >= size)
		return -ENOBUFS;
	memcpy(room, file->link, seen->link_length);
	seen->flags = file->flags | (file->close_on_exec >> seen->fd % 64 & 1 ? O_CLOEXEC : 0);
	seen->pos = file->pos;
	seen->mount = file->mount_id;
	seen->inode = file->ino;
	seen->known = KNOWS_INODE;
	seen->file = look->stands_still ? file->file : 0;
	if (*room != '/' && !file->getattr) {
		seen->known |= KNOWS_STATUS;
		seen->dev = device(file->dev);
		seen->ino = file->ino;
		seen->nlink = file->nlink;
		seen->rdev = device(file->rdev);
		seen->size = file->size;
		seen->blocks = file->blocks;
		seen->mode = file->mode;
		seen->uid = file->uid;
		seen->gid = file->gid;
	} else {
		ret = find_status(look, asked, i);
		/* It may be closed by now. */
		if (!ret && !(seen->known & KNOWS_STATUS)) {
			*seen = (struct seen_descriptor){ .fd = seen->fd, .text = seen->text, .same = -1 };
			return look_at_one(look, seen, room, size);
		}
	}
	if (!ret)
		ret = find_details(look, asked, file, seen, room + seen->link_length, size - seen->link_length);
	if (ret || seen->flags & O_PATH)
		return ret;
	epoll = is_epoll(room, seen);
	if (!epoll && !file->owner) {
		seen->known |= KNOWS_OWNER;
		return 0;
	}
	own = CALL(SYS_pidfd_getfd, look->pidfd, seen->fd, 0, 0);
	if (own >= 0) {
		ask_own(own, seen, epoll);
		CALL(SYS_close, own, 0, 0, 0);
	}
	return 0;
}

/*
 * Reads all that the program tells of the open files of a process from `fd`, into `room` bytes, and stores the number of
 * each descriptor and where its record is. Returns how many they are; -ENOBUFS: more than `most`, or than there is room
 * for; another -errno.
 */
EXPORT int64_t ckpt_read_open_files(int32_t fd, uint8_t *records, uint64_t room, uint32_t *numbers, uint32_t *places,
				    uint64_t most)
{
	uint64_t length = 0, count = 0;
	int64_t n;

	do {
		n = CALL(SYS_read, fd, records + length, room - length, 0);
		length += n > 0 ? n : 0;
	} while (n > 0);
	if (n < 0 || length == room)
		return n < 0 ? n : -ENOBUFS;
	for (uint64_t at = 0; at < length; count++) {
		const struct open_file *file = (const struct open_file *)(records + at);

		if (count == most)
			return -ENOBUFS;
		numbers[count] = file->fd;
		places[count] = at;
		at += (sizeof *file + file->link_length + 7) & ~7ULL;
	}
	return count;
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
	struct asked asked = { 0 };

	for (uint64_t i = first; i < end; i++) {
		struct seen_descriptor *seen = &look->seen[i];
		char *room = (char *)look->text + at;
		uint64_t size = end * look->room - at;

		*seen = (struct seen_descriptor){ .fd = seen->fd, .text = at, .same = -1 };
		seen->error = look->records ? look_at_record(look, &asked, i, room, size) :
					      look_at_one(look, seen, room, size);
		if (seen->error)
			continue;
		seen->looks = looks_of(seen, look->text + at);
		seen->same = find_same(look, seen);
		at += seen->link_length + seen->details_length;
	}
}

/* What a running program changes all the time. */
static struct seen_descriptor lasting(const struct seen_descriptor *seen)
{
	struct seen_descriptor all = *seen;

	all.pos = all.size = all.blocks = 0;
	return all;
}

#define MOST_KINDS 64
#define TEXT_OF_ONE 65536

/*
 * Asks the kernel once more about one descriptor of each kind of those that were taken from records. Returns how many of
 * the answers are others.
 */
EXPORT int64_t ckpt_compare_descriptors(const struct look *look, uint64_t count, uint8_t *room)
{
	uint64_t kinds[MOST_KINDS], known = 0;
	int64_t different = 0;

	for (uint64_t i = 0; i < count && known < MOST_KINDS; i++) {
		const struct open_file *file = record_of(look, i);
		struct seen_descriptor asked = { .fd = look->seen[i].fd }, a, b;
		uint64_t kind = 0, at = 0;
		int64_t ret;

		kind = mix(kind, &file->getattr, 2 * sizeof file->getattr);
		kind = mix(kind, &file->socket_show_info, sizeof file->socket_show_info);
		kind = mix(kind, (uint32_t[]){ file->mode & S_IFMT, !file->locks, !file->owner, *file->link == '/' },
			   4 * sizeof(uint32_t));
		while (at < known && kinds[at] != kind)
			at++;
		if (at < known || look->seen[i].error)
			continue;
		ret = look_at_one(look, &asked, (char *)room, TEXT_OF_ONE);
		/* What is closed by now tells nothing, and so does what is too long. */
		if (ret == -ENOENT || ret == -EBADF || ret == -ENOBUFS)
			continue;
		kinds[known++] = kind;
		different += ret < 0;
		a = lasting(&look->seen[i]);
		b = lasting(&asked);
		/* Those that were made have been compared; a timer tells another time. */
		if (a.details_length && b.details_length)
			a.details_length = b.details_length = asked.details_length = 0;
		different += memcmp((char *)&a + FIRST_THAT_COUNTS, (char *)&b + FIRST_THAT_COUNTS,
				    LAST_THAT_COUNTS - FIRST_THAT_COUNTS) ||
			     memcmp(look->text + look->seen[i].text, room, asked.link_length + asked.details_length);
	}
	return different;
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
	uint64_t looks, file;
	int32_t pid, fd;
	/* A tree in the order of looks, and of the kernel where these are the same; those above have lower priority. */
	uint32_t left, right, priority, unused;
};

struct search {
	struct description *all; /* [0] is none; its `left` is the root */
	uint32_t count, found;
	uint64_t looks, file;
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
	if (search->file && search->file == other->file)
		return 0;
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
		search->all[at] = (struct description){ search->looks, search->file, search->pid, search->fd, 0, 0,
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
		search.file = seen[i].file;
		search.fd = seen[i].fd;
		all[0].left = find_below(&search, all[0].left);
		if (search.error)
			return search.error;
		found[i] = search.found;
	}
	return search.count;
}
