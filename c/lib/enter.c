/* Giving ckpt's place to the program of c/enter, which starts ckpt in other namespaces. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ckpt.h"

/* A memfd that executes or is read as `program`; close-on-exec. Returns its number. */
static int64_t memfd_of(const char *name, const uint8_t *program, const uint8_t *end)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	ssize_t size = end - program;

	if (fd < 0 || write(fd, program, size) != size)
		return fail(CAUSE_ENTER, 0, 0, -errno);
	return fd;
}

/* The program of the agent, for the one that starts it in new namespaces. */
EXPORT int64_t ckpt_agent_program(void)
{
	return memfd_of("ckpt-agent", agent_elf, agent_elf_end);
}

/*
 * Executes the program of c/enter in the place of ckpt. `text` holds its arguments, each ending with a zero, `count` of
 * them. Undoes what the embedding runtime left: SIGPIPE ignored, a raised descriptor limit. Returns only on failure.
 */
EXPORT int64_t ckpt_enter(char *text, uint64_t count, uint64_t nofile_soft)
{
	int64_t fd = memfd_of("ckpt-enter", enter_elf, enter_elf_end);
	struct rlimit64 nofile;
	char *argv[count + 1];

	if (fd < 0)
		return fd;
	for (uint64_t i = 0; i < count; i++) {
		argv[i] = text;
		text += strlen(text) + 1;
	}
	argv[count] = NULL;
	if (prlimit64(0, RLIMIT_NOFILE, NULL, &nofile) == 0 && nofile_soft < nofile.rlim_max) {
		nofile.rlim_cur = nofile_soft;
		prlimit64(0, RLIMIT_NOFILE, &nofile, NULL);
	}
	signal(SIGPIPE, SIG_DFL);
	syscall(SYS_execveat, (int)fd, "", argv, environ, AT_EMPTY_PATH);
	return fail(CAUSE_ENTER, 0, 0, -errno);
}
