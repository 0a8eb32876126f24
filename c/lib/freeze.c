/* Stopping all threads of a process with ptrace, and letting them go. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ckpt.h"

/* Ends the trace of `count` threads; each goes on as it stands. A thread that is gone is fine. */
EXPORT int64_t ckpt_detach(const int32_t *tids, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		ptrace(PTRACE_DETACH, tids[i], 0, 0);
	return 0;
}

static int known(const int32_t *tids, uint64_t count, int32_t tid)
{
	/* Lists come in the same order every time: the newest are at the end. */
	for (uint64_t i = count; i-- > 0;)
		if (tids[i] == tid)
			return 1;
	return 0;
}

/*
 * Waits until an interrupted thread stands in a stop that no signal caused. A signal that was on its way is
 * delivered first: its handler's frame is set up, nothing of it runs. Returns 1 stopped, 0 ended, -errno.
 */
static int64_t wait_interrupted(int32_t tid, int timeout_ms)
{
	for (;;) {
		int status;
		int64_t ret = wait_task(tid, &status, timeout_ms);

		if (ret < 0)
			return ret;
		if (!WIFSTOPPED(status))
			return 0;
		if (STATUS_EVENT(status) == PTRACE_EVENT_STOP) {
			mend_interrupted_call(tid);
			return 1;
		}
		if (ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status)) < 0 && errno != ESRCH)
			return fail(CAUSE_RESUME, tid, 0, -errno);
	}
}

static int64_t list_new(int32_t pid, const int32_t *tids, uint64_t count, int32_t *out, uint64_t room)
{
	char path[40];
	uint64_t n = 0;
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return fail(CAUSE_LIST_THREADS, pid, 0, errno == ENOENT ? -ESRCH : -errno);
	while ((entry = readdir(dir))) {
		int32_t tid = atoi(entry->d_name);

		if (tid <= 0 || known(tids, count, tid))
			continue;
		if (n == room) {
			closedir(dir);
			return fail(CAUSE_LIST_THREADS, pid, n, -ENOBUFS);
		}
		out[n++] = tid;
	}
	closedir(dir);
	return n;
}

#define UNDO_TIMEOUT_MS 100

/*
 * Seizes and stops every thread of `pid`, also those born meanwhile; the leader is tids[0]. `options` are
 * PTRACE_O_*. Returns the number of threads; on failure all run on as if nothing had happened.
 * -ETIMEDOUT: a thread did not stop within `timeout_ms`; -ENOBUFS: more than `room` threads.
 */
EXPORT int64_t ckpt_freeze(int32_t pid, int32_t *tids, uint64_t room, uint64_t options, int32_t timeout_ms)
{
	uint64_t count = 0;
	int64_t found, ret;
	struct cause cause;

	do {
		uint64_t first = count;

		found = list_new(pid, tids, count, tids + count, room - count);
		if (found < 0) {
			ret = found;
			goto undo;
		}
		for (int64_t i = 0; i < found; i++) {
			int32_t tid = tids[first + i];

			if (ptrace(PTRACE_SEIZE, tid, 0, options) < 0) {
				int error = errno;

				/* A thread that ends meanwhile cannot be seized: ESRCH, or EPERM when it is a zombie. */
				if (tid != pid && (error == ESRCH || has_ended(tid)))
					continue;
				ret = fail(CAUSE_SEIZE, tid, 0, -error);
				goto undo;
			}
			tids[count++] = tid;
			if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 && errno != ESRCH) {
				ret = fail(CAUSE_INTERRUPT, tid, 0, -errno);
				goto undo;
			}
		}
		for (uint64_t i = first; i < count;) {
			ret = wait_interrupted(tids[i], timeout_ms);
			if (ret < 0)
				goto undo;
			if (ret == 1) {
				i++;
				continue;
			}
			if (tids[i] == pid) {
				ret = fail(CAUSE_GONE, pid, 0, -ESRCH);
				goto undo;
			}
			for (uint64_t k = i + 1; k < count; k++)
				tids[k - 1] = tids[k];
			count--;
		}
	} while (found > 0);
	for (uint64_t i = 1; i < count; i++)
		if (tids[i] == pid) {
			tids[i] = tids[0];
			tids[0] = pid;
		}
	return count;
undo:
	ckpt_cause(&cause);
	/* A thread that has not stopped yet cannot be let go. */
	for (uint64_t i = 0; i < count; i++)
		if (ptrace(PTRACE_DETACH, tids[i], 0, 0) < 0 && wait_interrupted(tids[i], UNDO_TIMEOUT_MS) == 1)
			ptrace(PTRACE_DETACH, tids[i], 0, 0);
	return fail(cause.step, cause.tid, cause.value, ret);
}

/* Seizes and stops one thread; the others run on. Returns 0; -ESRCH when it is gone. */
EXPORT int64_t ckpt_stop_thread(int32_t tid, uint64_t options, int32_t timeout_ms)
{
	int64_t ret;

	if (ptrace(PTRACE_SEIZE, tid, 0, options) < 0)
		return fail(CAUSE_SEIZE, tid, 0, -errno);
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return fail(CAUSE_INTERRUPT, tid, 0, -errno);
	ret = wait_interrupted(tid, timeout_ms);
	if (ret < 0)
		ckpt_detach(&tid, 1);
	return ret < 0 ? ret : ret == 1 ? 0 : fail(CAUSE_GONE, tid, 0, -ESRCH);
}

/*
 * Takes over a snapshot that was just made by a traced task: it is traced from its birth, and stops before it
 * runs. `options` are PTRACE_O_*; with PTRACE_O_EXITKILL it ends with us.
 */
EXPORT int64_t ckpt_adopt_snapshot(int32_t pid, uint64_t options)
{
	int64_t ret = wait_interrupted(pid, WAIT_FOREVER);

	if (ret < 0)
		return ret;
	if (ret == 0)
		return fail(CAUSE_GONE, pid, 0, -ESRCH);
	if (ptrace(PTRACE_SETOPTIONS, pid, 0, options) < 0)
		return fail(CAUSE_RESUME, pid, 0, -errno);
	return 0;
}

/*
 * Ends a frozen process without letting it run: SIGKILL reaches it in its stop. Then waits until it is gone, so
 * that its pid can be used again (its parent may still have to take its exit status).
 */
EXPORT int64_t ckpt_kill(int32_t pid, const int32_t *tids, uint64_t count)
{
	int status;

	if (kill(pid, SIGKILL) < 0 && errno != ESRCH)
		return fail(CAUSE_RESUME, pid, SIGKILL, -errno);
	/* The leader is reported last, when all others are gone. */
	for (uint64_t i = count; i-- > 0;)
		while (wait_task(tids[i], &status, WAIT_FOREVER) == 0 && WIFSTOPPED(status))
			;
	return 0;
}
