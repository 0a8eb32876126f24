/* Small files, of /proc and of images, each in one call from outside: there are dozens of them for every process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ckpt.h"

/* Files of /proc/sys are not read into more than KMALLOC_MAX_SIZE, 4 MiB (fs/proc/proc_sysctl.c). */
#define MOST_AT_ONCE (1 << 20)

/* Reads a whole file. Returns its length; -errno; -ENOBUFS when it has `room` bytes or more. */
EXPORT int64_t ckpt_read_file(const char *path, uint8_t *out, uint64_t room)
{
	uint64_t length = 0;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* Only a read of nothing is the end: a file of /proc comes in records. */
	while (n && length < room) {
		uint64_t count = room - length;

		n = read(fd, out + length, count < MOST_AT_ONCE ? count : MOST_AT_ONCE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			n = -errno;
			close(fd);
			return n;
		}
		length += n;
	}
	close(fd);
	return n ? -ENOBUFS : (int64_t)length;
}

static bool begins(const uint8_t *line, const char *with)
{
	return !strncmp((const char *)line, with, strlen(with));
}

/*
 * The same of /proc/PID/smaps, but only the lines that begin a record, those of VmFlags, and the size of huge pages: the
 * rest, which begins with other capital letters, is nine tenths of it.
 */
EXPORT int64_t ckpt_read_smaps(const char *path, uint8_t *out, uint64_t room)
{
	static const char flags[] = "VmFlags:", size[] = "KernelPageSize:", usual[] = "KernelPageSize:        4 kB";
	int64_t length = ckpt_read_file(path, out, room);
	uint8_t *end = out + length, *to = out;

	if (length < 0)
		return length;
	for (uint8_t *line = out, *next; line < end; line = next) {
		next = memchr(line, '\n', end - line);
		next = next ? next + 1 : end;
		if (*line >= 'A' && *line <= 'Z' && !begins(line, flags) && (!begins(line, size) || begins(line, usual)))
			continue;
		memmove(to, line, next - line);
		to += next - line;
	}
	return to - out;
}

/* Stores the names of a directory that are numbers. Returns how many; -errno; -ENOBUFS when they are more than `room`. */
EXPORT int64_t ckpt_list_numbers(const char *path, int32_t *out, uint64_t room)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	uint64_t count = 0;
	int64_t ret;

	if (!dir)
		return -errno;
	while (errno = 0, (entry = readdir(dir))) {
		char *end;
		long number = strtol(entry->d_name, &end, 10);

		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || *end)
			continue;
		if (count < room)
			out[count] = number;
		count++;
	}
	ret = errno ? -errno : count > room ? -ENOBUFS : (int64_t)count;
	closedir(dir);
	return ret;
}

/*
 * Stores what links in a directory lead to, each with a newline. Their names follow each other, terminated; an empty
 * one ends them. Returns the length of all; -errno; -ENOBUFS when that is not less than `room`.
 */
EXPORT int64_t ckpt_read_links(const char *directory, const char *names, uint8_t *out, uint64_t room)
{
	uint64_t length = 0;
	int64_t ret = 0;
	int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (; *names && !ret; names += strlen(names) + 1) {
		ssize_t n = readlinkat(fd, names, (char *)out + length, room - length);

		if (n < 0) {
			ret = -errno;
		} else if (length + n >= room) {
			ret = -ENOBUFS;
		} else {
			length += n;
			out[length++] = '\n';
		}
	}
	close(fd);
	return ret ? ret : (int64_t)length;
}

/* Makes a file, which must not exist, that only its owner may read. Returns 0; -errno. */
EXPORT int64_t ckpt_write_file(const char *path, const uint8_t *bytes, uint64_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int64_t ret = fd < 0 ? -errno : 0;

	while (!ret && length) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			ret = -errno;
			break;
		}
		bytes += n;
		length -= n;
	}
	if (fd >= 0 && close(fd) < 0 && !ret)
		ret = -errno;
	return ret;
}

static int64_t read_part(int fd, uint8_t *out, uint64_t length)
{
	while (length) {
		ssize_t n = read(fd, out, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EIO;
		out += n;
		length -= n;
	}
	return 0;
}

/* The size of a regular file; -1 for all else. */
static int64_t size_of(int dir, const char *name)
{
	struct stat status;

	if (syscall(SYS_newfstatat, dir, name, &status, 0) || !S_ISREG(status.st_mode))
		return -1;
	return status.st_size;
}

/*
 * Looks at many regular files of a directory, and reads those that are to be: one after the other, each with its SHA-256.
 * names: each terminated. sizes: that of each file, negative for one that is not read; gets what was found, -1 for what
 * is no such file or cannot be read. Of one that has another size nothing is read. Returns 0; -errno.
 */
EXPORT int64_t ckpt_read_files(const char *directory, const char *names, uint64_t count, int64_t *sizes, uint8_t *out,
			       uint8_t *digests)
{
	int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -errno;
	for (uint64_t i = 0; i < count; i++, names += strlen(names) + 1) {
		int64_t wanted = sizes[i];
		int fd;

		sizes[i] = size_of(dir, names);
		if (wanted < 0)
			continue;
		/* To open what is no regular file could wait, or act. */
		fd = sizes[i] == wanted ? openat(dir, names, O_RDONLY | O_CLOEXEC) : -1;
		if (fd < 0 || read_part(fd, out, wanted))
			sizes[i] = -1;
		else
			ckpt_sha256(out, wanted, digests, 0);
		if (fd >= 0)
			close(fd);
		out += wanted;
		digests += SHA256_BYTES;
	}
	close(dir);
	return 0;
}
