/*
 * Where the kernel keeps what: offsets of fields in its structures, and numbers of its functions, from the types it
 * describes itself by (BTF, Documentation/bpf/btf.rst). These are 5 MB, of which JavaScript would make 100 ms.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "../agent/raw_call.h"
#include "ckpt.h"

#define MAGIC 0xeb9f
#define HAS_BITFIELDS 0x80000000U

enum kind {
	KIND_INT = 1,
	KIND_ARRAY = 3,
	KIND_STRUCT = 4,
	KIND_UNION = 5,
	KIND_ENUM = 6,
	KIND_TYPEDEF = 8,
	KIND_VOLATILE = 9,
	KIND_CONST = 10,
	KIND_FUNC = 12,
	KIND_FUNC_PROTO = 13,
	KIND_VAR = 14,
	KIND_DATASEC = 15,
	KIND_DECL_TAG = 17,
	KIND_TYPE_TAG = 18,
	KIND_ENUM64 = 19,
};

struct header {
	uint16_t magic;
	uint8_t version, flags;
	uint32_t length, types, types_length, names, names_length;
};

/* What follows it depends on the kind. */
struct type {
	uint32_t name, info;
	uint32_t size; /* or the number of another type */
};

struct member {
	uint32_t name, type, offset;
};

/* Of the kernel, and of a module, whose numbers of types and offsets of names go on where those of the kernel end. */
struct file {
	uint8_t *bytes;
	uint64_t size;
	const char *names;
	uint32_t names_length;
};

#define MOST_FILES 2
#define MOST_WANTED 64
/* Deeper, or in more steps, no field of a kernel is found. */
#define DEEPEST 32
#define MOST_STEPS 1000000

struct types {
	struct file files[MOST_FILES];
	const struct type **all; /* by their numbers; [0] is void */
	uint32_t count;
	uint32_t steps;
};

/* One line of what is wanted. */
struct wanted {
	enum kind kind;
	const char *name;
	uint32_t length;
	const char *fields; /* NULL: none */
	const char *end;
	int64_t *answers;
	int done;
};

static enum kind kind_of(const struct type *type)
{
	return type->info >> 24 & 0x1f;
}

static uint32_t parts_of(const struct type *type)
{
	return type->info & 0xffff;
}

/* How much there is of a type; 0: it is of an unknown kind. */
static uint64_t length_of(const struct type *type)
{
	switch (kind_of(type)) {
	case KIND_INT:
	case KIND_VAR:
	case KIND_DECL_TAG:
		return sizeof *type + 4;
	case KIND_ARRAY:
		return sizeof *type + 12;
	case KIND_STRUCT:
	case KIND_UNION:
	case KIND_DATASEC:
	case KIND_ENUM64:
		return sizeof *type + 12 * parts_of(type);
	case KIND_ENUM:
	case KIND_FUNC_PROTO:
		return sizeof *type + 8 * parts_of(type);
	default:
		return kind_of(type) <= KIND_ENUM64 ? sizeof *type : 0;
	}
}

/* A text that ends with a zero. */
static const char *name_at(const struct types *types, uint32_t at)
{
	for (int i = 0; i < MOST_FILES; i++) {
		if (at < types->files[i].names_length)
			return types->files[i].names + at;
		at -= types->files[i].names_length;
	}
	return "";
}

static int is_name(const char *name, const char *wanted, uint32_t length)
{
	return !strncmp(name, wanted, length) && !name[length];
}

/* Linux 6.16 and newer show their types without a copy. */
static int64_t map_all(int fd, struct file *file)
{
	struct stat status;
	uint64_t got = 0;
	ssize_t n;
	/* fstat() is a symbol of new C libraries only. */
	int64_t ret = raw_call(SYS_fstat, fd, (uint64_t)&status, 0, 0, 0, 0);

	if (ret)
		return ret;
	file->size = status.st_size;
	file->bytes = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (file->bytes != MAP_FAILED)
		return 0;
	file->bytes = mmap(NULL, file->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (file->bytes == MAP_FAILED) {
		file->bytes = NULL;
		return -errno;
	}
	do {
		n = read(fd, file->bytes + got, file->size - got);
		got += n > 0 ? n : 0;
	} while (n > 0);
	return n < 0 ? -errno : 0;
}

static int64_t read_all(const char *path, struct file *file)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int64_t ret = fd < 0 ? -errno : map_all(fd, file);

	if (fd >= 0)
		close(fd);
	return ret;
}

/* Numbers the types of a file. */
static int64_t add_types(struct types *types, struct file *file)
{
	struct header header;
	const struct type **grown;
	uint64_t start, end, names;

	if (file->size < sizeof header)
		return -EINVAL;
	memcpy(&header, file->bytes, sizeof header);
	start = (uint64_t)header.length + header.types;
	end = start + header.types_length;
	names = (uint64_t)header.length + header.names;
	if (header.magic != MAGIC || start % 4 || end > file->size || names + header.names_length > file->size ||
	    !header.names_length || file->bytes[names + header.names_length - 1])
		return -EINVAL;
	file->names = (const char *)file->bytes + names;
	file->names_length = header.names_length;
	grown = realloc(types->all, (types->count + header.types_length / sizeof(struct type)) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	types->all = grown;
	while (end - start >= sizeof(struct type)) {
		const struct type *type = (const struct type *)(file->bytes + start);
		uint64_t length = length_of(type);

		if (!length || length > end - start)
			return -EINVAL;
		types->all[types->count++] = type;
		start += length;
	}
	return 0;
}

static int64_t find_inside(struct types *types, uint32_t number, const char *path, const char *end, int depth);

/* The offset in bits of a field: "first.second"; -1: there is none. */
static int64_t find_field(struct types *types, const struct type *type, const char *path, const char *end, int depth)
{
	const struct member *members = (const struct member *)(type + 1);
	const char *dot = memchr(path, '.', end - path);
	uint32_t mask = type->info & HAS_BITFIELDS ? 0xffffff : UINT32_MAX;

	for (uint32_t i = 0; i < parts_of(type) && types->steps < MOST_STEPS; i++) {
		const struct member *member = &members[i];
		int64_t inside = -1;

		types->steps++;
		/* Members of a structure without a name are those of the outer one. */
		if (!member->name)
			inside = find_inside(types, member->type, path, end, depth);
		else if (is_name(name_at(types, member->name), path, (dot ? dot : end) - path))
			inside = dot ? find_inside(types, member->type, dot + 1, end, depth) : 0;
		if (inside >= 0)
			return (member->offset & mask) + inside;
	}
	return -1;
}

static int64_t find_inside(struct types *types, uint32_t number, const char *path, const char *end, int depth)
{
	while (depth < DEEPEST && number && number < types->count) {
		const struct type *type = types->all[number];

		depth++;
		switch (kind_of(type)) {
		case KIND_STRUCT:
		case KIND_UNION:
			return find_field(types, type, path, end, depth);
		case KIND_TYPEDEF:
		case KIND_VOLATILE:
		case KIND_CONST:
		case KIND_TYPE_TAG:
			number = type->size;
			break;
		default:
			return -1;
		}
	}
	return -1;
}

/* Answers a line of what is wanted by a type of its name, unless that has not all of it. */
static void answer(struct types *types, struct wanted *wanted, uint32_t number)
{
	const struct type *type = types->all[number];
	const char *at = wanted->fields;
	int64_t *answers = wanted->answers;

	*answers = wanted->kind == KIND_FUNC ? number : 8 * (int64_t)type->size;
	wanted->done = 1;
	while (at) {
		const char *next = memchr(at, ' ', wanted->end - at);

		*++answers = find_field(types, type, at, next ? next : wanted->end, 0);
		if (*answers < 0)
			wanted->done = 0;
		at = next ? next + 1 : NULL;
	}
}

/*
 * @text: lines "s STRUCTURE FIELD FIELD.FIELD" or "f FUNCTION", each with its newline
 * Returns how many lines there are; -E2BIG.
 */
static int64_t parse(const char *text, struct wanted *wanted, int64_t *answers)
{
	int64_t count = 0;

	for (; *text; text = wanted[count++].end + 1) {
		struct wanted *line = &wanted[count];
		const char *space;

		if (count == MOST_WANTED)
			return -E2BIG;
		*line = (struct wanted){ .kind = *text == 'f' ? KIND_FUNC : KIND_STRUCT, .name = text + 2, .answers = answers };
		line->end = strchrnul(text, '\n');
		if (!*line->end || line->end - text < 2)
			return -EINVAL;
		space = memchr(line->name, ' ', line->end - line->name);
		line->length = (space ? space : line->end) - line->name;
		line->fields = space ? space + 1 : NULL;
		for (*answers++ = -1; space; space = memchr(space + 1, ' ', line->end - space - 1))
			*answers++ = -1;
	}
	return count;
}

/* Gives answers from the first types that have all of a line. */
static void answer_all(struct types *types, struct wanted *wanted, int64_t lines)
{
	for (uint32_t number = 1; number < types->count; number++) {
		const struct type *type = types->all[number];
		enum kind kind = kind_of(type);
		const char *name;

		if ((kind != KIND_STRUCT && kind != KIND_FUNC) || !type->name)
			continue;
		name = name_at(types, type->name);
		for (struct wanted *line = wanted; line < wanted + lines; line++) {
			if (line->kind == kind && !line->done && *name == *line->name &&
			    is_name(name, line->name, line->length))
				answer(types, line, number);
		}
	}
}

/*
 * Looks up what `text` asks for, in lines "s STRUCTURE FIELD FIELD.FIELD" and "f FUNCTION", in the types of the kernel
 * and of a module, unless that is "" or is no file: what is built in, the kernel tells. Stores for each line the size
 * of the structure in bits, and the offset of each field in bits, or the number of the function; -1: not known. Where
 * no structure of that name has all the fields, one of them is told. Returns 0, or -errno.
 */
EXPORT int64_t ckpt_find_types(const char *kernel, const char *module, const char *text, int64_t *answers)
{
	struct types types = { .count = 1, .all = calloc(1, sizeof *types.all) };
	struct wanted wanted[MOST_WANTED];
	int64_t lines = parse(text, wanted, answers), ret;

	ret = !types.all ? -ENOMEM : lines < 0 ? lines : read_all(kernel, &types.files[0]);
	if (!ret)
		ret = add_types(&types, &types.files[0]);
	if (!ret && *module) {
		ret = read_all(module, &types.files[1]);
		ret = ret == -ENOENT ? 0 : ret ? ret : add_types(&types, &types.files[1]);
	}
	if (!ret)
		answer_all(&types, wanted, lines);
	for (int i = 0; i < MOST_FILES; i++) {
		if (types.files[i].bytes)
			munmap(types.files[i].bytes, types.files[i].size);
	}
	free(types.all);
	return ret;
}
