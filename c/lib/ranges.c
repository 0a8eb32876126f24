/* The data of a file that has holes: where they are, and copying them piece by piece, in one call from outside. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "ckpt.h"

/* Bytes of a page of a file on hugetlbfs; 0: it is elsewhere. */
static uint64_t huge_page(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : 0;
}

/* A file whose data are looked for, from its beginning to its end. */
struct data {
	int fd;
	uint64_t size, at; /* bytes of the file, and of what was looked at */
	uint64_t page; /* of hugetlbfs, which has no holes to tell of: pages of zeros are such */
	uint8_t *buffer; /* for one of these */
};

static int64_t begin_data(struct data *data, int fd, uint64_t size)
{
	*data = (struct data){ .fd = fd, .size = size, .page = huge_page(fd) };
	if (data->page)
		data->buffer = malloc(data->page);
	return data->page && !data->buffer ? -ENOMEM : 0;
}

static int64_t next_huge(struct data *data, uint64_t *start)
{
	for (; data->at < data->size; data->at += data->page) {
		ssize_t n = pread(data->fd, data->buffer, data->page, data->at);

		if (n < 0)
			return -errno;
		if (n == 0 || (data->buffer[0] == 0 && !memcmp(data->buffer, data->buffer + 1, n - 1)))
			continue;
		*start = data->at;
		data->at += data->page;
		return n;
	}
	return 0;
}

/* Finds the next part that is no hole (lseek(2)), and where it begins. Returns its length; 0: there is none; -errno. */
static int64_t next_data(struct data *data, uint64_t *start)
{
	off_t from, end;

	if (data->page)
		return next_huge(data, start);
	if (data->at >= data->size)
		return 0;
	from = lseek(data->fd, data->at, SEEK_DATA);
	if (from < 0)
		return errno == ENXIO ? 0 : -errno;
	end = lseek(data->fd, from, SEEK_HOLE);
	if (end < 0)
		return -errno;
	if (end > (off_t)data->size)
		end = data->size;
	if (from >= end)
		return 0;
	*start = from;
	data->at = end;
	return end - from;
}

/* Stores offset and length of the parts of a file that are no holes, up to `size`. Returns how many; -errno. */
EXPORT int64_t ckpt_data_ranges(int fd, uint64_t size, uint64_t *out, uint64_t room)
{
	struct data data;
	uint64_t count = 0, start;
	int64_t length = begin_data(&data, fd, size);

	for (; length >= 0 && count < room; count++) {
		length = next_data(&data, &start);
		if (length <= 0)
			break;
		out[2 * count] = start;
		out[2 * count + 1] = length;
	}
	free(data.buffer);
	return length < 0 ? length : (int64_t)count;
}

/* lib/ghost/content.ts has the same. */
struct range {
	uint64_t from;
	uint64_t to;
	uint64_t length;
};

/* Shared with JavaScript, which goes on meanwhile. */
struct copy_progress {
	volatile uint64_t done;	  /* bytes */
	volatile uint64_t cancel; /* from JavaScript */
};

#define PIECE (256 << 10)
/* Of the kernel's own copying: it is told how far it is, and may be cancelled, only in between. Whole blocks. */
#define MOST_AT_ONCE (16 << 20)

/* hugetlbfs knows no write(2). The file is as long already. Returns as pwrite(2), within one page; the error in errno. */
static ssize_t write_huge(int fd, const uint8_t *bytes, uint64_t length, uint64_t at)
{
	uint64_t page = huge_page(fd), inside = page ? at % page : 0;
	uint8_t *memory;

	if (!page) {
		errno = EINVAL;
		return -1;
	}
	/* Where there are too few pages, this fails, and not the access. */
	memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at - inside);
	if (memory == MAP_FAILED)
		return -1;
	if (length > page - inside)
		length = page - inside;
	memcpy(memory + inside, bytes, length);
	munmap(memory, page);
	return length;
}

static int64_t write_all(int fd, const uint8_t *bytes, uint64_t length, uint64_t at)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL)
			n = write_huge(fd, bytes, length, at);
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		bytes += n;
		at += n;
		length -= n;
	}
	return 0;
}

/* Inside the kernel: fewer copies, and file systems may share blocks. Returns bytes; -errno, also where that is not possible. */
static int64_t copy_inside(int from, int to, const struct range *range, uint64_t done)
{
	loff_t source = range->from + done, target = range->to + done;
	uint64_t length = range->length - done;
	ssize_t n = copy_file_range(from, &source, to, &target, length < MOST_AT_ONCE ? length : MOST_AT_ONCE, 0);

	return n < 0 ? -errno : n;
}

static int64_t copy_piece(int from, int to, const struct range *range, uint64_t done, uint8_t *buffer)
{
	uint64_t length = range->length - done;
	ssize_t n;

	do
		n = pread(from, buffer, length < PIECE ? length : PIECE, range->from + done);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		int64_t ret = write_all(to, buffer, n, range->to + done);

		return ret < 0 ? ret : n;
	}
	return n < 0 ? -errno : 0;
}

/* Copies a range. `inside` tells whether the kernel can do it, until it turns out that it cannot. */
static int64_t copy_range(int from, int to, const struct range *range, uint8_t *buffer, int *inside,
			  struct copy_progress *progress)
{
	for (uint64_t done = 0; done < range->length;) {
		int64_t ret;

		if (progress->cancel)
			return -ECANCELED;
		ret = *inside ? copy_inside(from, to, range, done) : copy_piece(from, to, range, done, buffer);
		if (*inside && (ret == -EXDEV || ret == -EINVAL || ret == -EOPNOTSUPP)) {
			*inside = 0;
			continue;
		}
		if (ret <= 0)
			return ret ? ret : -ENODATA;
		done += ret;
		__atomic_fetch_add(&progress->done, ret, __ATOMIC_RELAXED);
	}
	return 0;
}

/* Copies ranges of one file to another. Returns 0; -ECANCELED; -ENODATA when the file ends too early; -errno. */
EXPORT int64_t ckpt_copy_ranges(int from, int to, const struct range *ranges, uint64_t count,
				struct copy_progress *progress)
{
	uint8_t *buffer = malloc(PIECE);
	int64_t ret = buffer ? 0 : -ENOMEM;
	int inside = 1;

	for (uint64_t i = 0; i < count && ret >= 0; i++)
		ret = copy_range(from, to, &ranges[i], buffer, &inside, progress);
	free(buffer);
	return ret < 0 ? ret : 0;
}

/* lib/ghost/content.ts has the same. */
struct content {
	struct copy_progress progress;
	int32_t from, image;
	uint64_t size;
	uint64_t position; /* in the image, of what is written next */
	uint32_t is_aligned; /* so that blocks can be shared */
	uint32_t processors;
	uint64_t needed; /* gets how many bytes of blocks the data need */
};

/* All that those who copy it share. */
struct saving {
	struct content *content;
	pthread_mutex_t lock;
	struct data data;
	struct range rest; /* of what is copied in pieces */
	int64_t error;
};

enum {
	BLOCK = 4096, /* file systems give space, and share it, in such or smaller ones */
	HEAD_ROOM = 64, /* of a chunk, without filling */
	FILLING_HEAD = 3,
	/* From here on sharing blocks is worth an aligned place. */
	WORTH_ALIGNING = 65536,
};

static uint8_t *put_number(uint8_t *at, uint8_t tag, uint64_t value)
{
	for (*at++ = tag; value >= 0x80; value >>= 7)
		*at++ = value | 0x80;
	*at++ = value;
	return at;
}

/*
 * Makes what goes before `length` bytes that belong at `offset`: a ghost_chunk_entry with its size. Where blocks may be
 * shared it is filled up, by a field that nobody knows, so that the bytes lie in the image as they lie in the blocks of
 * the file. `head` is zeros. Returns its length.
 */
static uint32_t put_chunk_head(const struct content *content, uint64_t offset, uint64_t length, uint8_t *head)
{
	uint8_t *at = put_number(put_number(head + 4, 1 << 3, length), 2 << 3, offset);
	uint32_t size = at - head, missing;

	if (content->is_aligned && length >= WORTH_ALIGNING) {
		missing = (offset - content->position - size) % BLOCK;
		if (missing && missing < FILLING_HEAD)
			missing += BLOCK;
		if (missing) {
			uint32_t zeros = missing - FILLING_HEAD;

			*at++ = 15 << 3 | 2;
			*at++ = (zeros & 0x7f) | 0x80;
			*at = zeros >> 7;
			size += missing;
		}
	}
	memcpy(head, &(uint32_t){ size - 4 }, 4);
	return size;
}

/* Begins the next part, and writes its head. Returns whether there is one; -errno. */
static int64_t next_part(struct saving *saving)
{
	struct content *content = saving->content;
	uint8_t head[HEAD_ROOM + 2 * BLOCK] = { 0 };
	uint64_t start;
	int64_t length = next_data(&saving->data, &start);
	uint32_t size;

	if (length <= 0)
		return length;
	size = put_chunk_head(content, start, length, head);
	saving->rest = (struct range){ .from = start, .to = content->position + size, .length = length };
	content->needed += (length + BLOCK - 1) / BLOCK * BLOCK;
	length = write_all(content->image, head, size, content->position);
	content->position = saving->rest.to + saving->rest.length;
	return length < 0 ? length : 1;
}

/* Takes the next piece of what is to be copied. Returns whether there is one. */
static int next_piece(struct saving *saving, struct range *piece)
{
	int found;

	pthread_mutex_lock(&saving->lock);
	if (saving->error >= 0 && !saving->rest.length)
		saving->error = next_part(saving);
	found = saving->error > 0;
	if (found) {
		*piece = saving->rest;
		if (piece->length > MOST_AT_ONCE)
			piece->length = MOST_AT_ONCE;
		saving->rest.from += piece->length;
		saving->rest.to += piece->length;
		saving->rest.length -= piece->length;
	}
	pthread_mutex_unlock(&saving->lock);
	return found;
}

static void save_pieces(void *argument, uint64_t first, uint64_t end)
{
	struct saving *saving = argument;
	struct content *content = saving->content;
	uint8_t *buffer = malloc(PIECE);
	struct range piece;
	int inside = 1;
	int64_t ret = buffer ? 0 : -ENOMEM;

	(void)first, (void)end;
	while (ret >= 0 && next_piece(saving, &piece))
		ret = copy_range(content->from, content->image, &piece, buffer, &inside, &content->progress);
	if (ret < 0) {
		pthread_mutex_lock(&saving->lock);
		saving->error = ret;
		pthread_mutex_unlock(&saving->lock);
	}
	free(buffer);
}

/* Copies all of a file that is no hole to its image, in chunks. Returns as ckpt_copy_ranges does. */
EXPORT int64_t ckpt_save_content(struct content *content)
{
	struct saving saving = { .content = content, .lock = PTHREAD_MUTEX_INITIALIZER, .error = 1 };
	int64_t ret = begin_data(&saving.data, content->from, content->size);

	if (ret >= 0) {
		share_rounds(content->processors, 1, save_pieces, &saving);
		ret = saving.error;
	}
	free(saving.data.buffer);
	return ret < 0 ? ret : 0;
}

/* Takes a number (a varint) at `at`. Returns what follows; NULL when there is none. */
static const uint8_t *take_varint(const uint8_t *at, const uint8_t *end, uint64_t *out)
{
	*out = 0;
	for (int shift = 0; at < end && shift < 64; shift += 7) {
		*out |= (uint64_t)(*at & 0x7f) << shift;
		if (*at++ < 0x80)
			return at;
	}
	return NULL;
}

/*
 * Reads the heads of the chunks of an image from `position` on, and stores offset, length and position of each, as far
 * as they are such as ckpt makes them and each is within the `size` bytes of the image. Returns how many.
 */
EXPORT int64_t ckpt_list_chunks(int image, uint64_t position, uint64_t size, uint64_t *out, uint64_t room)
{
	uint64_t count = 0;

	for (; position < size && count < room; count++) {
		uint8_t head[HEAD_ROOM];
		ssize_t n = pread(image, head, sizeof head, position);
		const uint8_t *at = head + 4, *end = head + n;
		uint64_t length, offset;
		uint32_t bytes;

		if (n < 4)
			break;
		memcpy(&bytes, head, 4);
		if (bytes > HEAD_ROOM + 2 * BLOCK || at == end || *at++ != 1 << 3)
			break;
		at = take_varint(at, end, &length);
		if (!at || at == end || *at++ != 2 << 3)
			break;
		at = take_varint(at, end, &offset);
		/* What follows may be the filling. */
		if (!at || (at != head + 4 + bytes && (at + FILLING_HEAD > end || *at != (15 << 3 | 2) ||
						       (at[1] & 0x7f) + at[2] * 0x80 != head + 4 + bytes - at - FILLING_HEAD)))
			break;
		position += 4 + bytes;
		if (position > size || length > size - position)
			break;
		out[3 * count] = offset;
		out[3 * count + 1] = length;
		out[3 * count + 2] = position;
		position += length;
	}
	return count;
}
