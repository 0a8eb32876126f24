/*
 * The bytes of an archive of files: a gzip stream (RFC 1952) of stored blocks (RFC 1951, 3.2.4), so that nothing has
 * to be compressed, and what others have compressed is read as plain bytes from elsewhere. Contents go from file to
 * file without passing through JavaScript.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "ckpt.h"

#define MOST_STORED 65535u /* bytes of a stored block */
#define BLOCK_HEAD 5

/* lib/mnt/archive.ts has the same. `at` is where the next byte of the file is read or written. */
struct archive {
	int32_t fd;
	uint32_t plain; /* read: no gzip, only the bytes */
	uint64_t at;
	uint64_t total; /* bytes of the archive so far */
	uint32_t crc;
	uint32_t left; /* read: bytes left in the current block */
	uint32_t last; /* read: it is the last one */
	uint32_t unused;
};

static uint32_t tables[8][256];

static void make_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
		tables[0][i] = crc;
	}
	for (int t = 1; t < 8; t++)
		for (int i = 0; i < 256; i++)
			tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 0xff];
}

/* CRC-32 of RFC 1952, eight bytes at a time. */
static uint32_t add_crc(uint32_t crc, const uint8_t *bytes, uint64_t length)
{
	if (!tables[0][1])
		make_tables();
	crc = ~crc;
	for (; length >= 8; bytes += 8, length -= 8) {
		uint32_t low, high;

		memcpy(&low, bytes, 4);
		memcpy(&high, bytes + 4, 4);
		low ^= crc;
		crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
		      tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^
		      tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
	}
	while (length--)
		crc = crc >> 8 ^ tables[0][(crc ^ *bytes++) & 0xff];
	return ~crc;
}

static int64_t write_at(int fd, const uint8_t *bytes, uint64_t length, uint64_t at)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		length -= n;
		at += n;
	}
	return 0;
}

/* -ENODATA: the file ends before. */
static int64_t read_at(int fd, uint8_t *bytes, uint64_t length, uint64_t at)
{
	while (length) {
		ssize_t n = pread(fd, bytes, length, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		bytes += n;
		length -= n;
		at += n;
	}
	return 0;
}

static int64_t append_block(struct archive *archive, uint8_t *block, uint32_t length, int last)
{
	int64_t ret;

	block[0] = last;
	block[1] = length;
	block[2] = length >> 8;
	block[3] = ~length;
	block[4] = ~length >> 8;
	ret = write_at(archive->fd, block, BLOCK_HEAD + length, archive->at);
	archive->at += BLOCK_HEAD + length;
	return ret;
}

/*
 * Appends `length` bytes: those at `bytes`, or, where it is NULL, those of a file from `offset` on.
 * Returns 0; -errno; -ENODATA when the file is shorter.
 */
EXPORT int64_t ckpt_archive_append(struct archive *archive, const uint8_t *bytes, int from, uint64_t offset,
				   uint64_t length)
{
	uint8_t block[BLOCK_HEAD + MOST_STORED];

	while (length) {
		uint32_t part = length < MOST_STORED ? length : MOST_STORED;
		int64_t ret = 0;

		if (bytes)
			memcpy(block + BLOCK_HEAD, bytes, part);
		else
			ret = read_at(from, block + BLOCK_HEAD, part, offset);
		if (ret < 0)
			return ret;
		archive->crc = add_crc(archive->crc, block + BLOCK_HEAD, part);
		archive->total += part;
		ret = append_block(archive, block, part, 0);
		if (ret < 0)
			return ret;
		bytes = bytes ? bytes + part : NULL;
		offset += part;
		length -= part;
	}
	return 0;
}

/* Ends the stream: a last block without bytes, and the trailer of gzip. Returns 0; -errno. */
EXPORT int64_t ckpt_archive_end(struct archive *archive)
{
	uint8_t block[BLOCK_HEAD];
	uint32_t trailer[2] = { archive->crc, (uint32_t)archive->total };
	int64_t ret = append_block(archive, block, 0, 1);

	if (ret < 0)
		return ret;
	ret = write_at(archive->fd, (uint8_t *)trailer, sizeof(trailer), archive->at);
	archive->at += sizeof(trailer);
	return ret;
}

/* Opens the next block. -ENODATA: there is none; -EBADMSG: it is no stored block. */
static int64_t next_block(struct archive *archive)
{
	uint8_t head[BLOCK_HEAD];
	int64_t ret;

	if (archive->last)
		return -ENODATA;
	ret = read_at(archive->fd, head, sizeof(head), archive->at);
	if (ret < 0)
		return ret;
	archive->left = head[1] | head[2] << 8;
	if (head[0] > 1 || (head[3] | head[4] << 8) != (int)(~archive->left & 0xffff))
		return -EBADMSG;
	archive->last = head[0];
	archive->at += sizeof(head);
	return 0;
}

/*
 * Takes the next `length` bytes: to `bytes`, or, where it is NULL, to a file from `offset` on; with `to` -1 they are
 * only passed over. Returns 0; -errno; -ENODATA when the archive ends before; -EBADMSG when it is damaged.
 */
EXPORT int64_t ckpt_archive_take(struct archive *archive, uint8_t *bytes, int to, uint64_t offset, uint64_t length)
{
	uint8_t part[MOST_STORED];

	while (length) {
		uint32_t count = length < sizeof(part) ? length : sizeof(part);
		uint8_t *place = bytes ? bytes : part;
		int64_t ret;

		if (!archive->plain) {
			while (!archive->left) {
				ret = next_block(archive);
				if (ret < 0)
					return ret;
			}
			if (count > archive->left)
				count = archive->left;
			archive->left -= count;
		}
		ret = read_at(archive->fd, place, count, archive->at);
		if (ret < 0)
			return ret;
		if (!archive->plain)
			archive->crc = add_crc(archive->crc, place, count);
		if (!bytes && to >= 0) {
			ret = write_at(to, place, count, offset);
			if (ret < 0)
				return ret;
		}
		archive->at += count;
		archive->total += count;
		bytes = bytes ? bytes + count : NULL;
		offset += count;
		length -= count;
	}
	return 0;
}

/* Passes over what is left, and compares the trailer of gzip. Returns 0; -errno; -EBADMSG when it is damaged. */
EXPORT int64_t ckpt_archive_finish(struct archive *archive)
{
	uint8_t rest[512];
	uint32_t trailer[2];
	int64_t ret = 0;

	if (archive->plain)
		return 0;
	while (!(archive->last && !archive->left) && ret >= 0) {
		if (archive->left)
			ret = ckpt_archive_take(archive, rest, -1, 0,
						archive->left < sizeof(rest) ? archive->left : sizeof(rest));
		else
			ret = next_block(archive);
	}
	if (ret >= 0)
		ret = read_at(archive->fd, (uint8_t *)trailer, sizeof(trailer), archive->at);
	if (ret < 0)
		return ret == -ENODATA ? -EBADMSG : ret;
	return trailer[0] == archive->crc && trailer[1] == (uint32_t)archive->total ? 0 : -EBADMSG;
}
