/* Stopping all threads of a process, or of a tree of processes, with ptrace, and letting them go. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "ckpt.h"

/* Ends the trace of `count` threads; each goes on as it stands. A thread that is gone is fine. */
EXPORT int64_t ckpt_detach(const int32_t *tids, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		ptrace(PTRACE_DETACH, tids[i], 0, 0);
	return 0;
}

/*
 * Waits until an interrupted thread stands in a stop that no signal caused. A signal that was on its way is
 * delivered first: its handler's frame is set up, nothing of it runs. Returns 1 stopped, 0 ended, -errno.
 * `stop_signal` is the signal of the group stop (job control) that holds it, or 0; may be NULL.
 */
static int64_t wait_interrupted(int32_t tid, int timeout_ms, int32_t *stop_signal)
{
	for (;;) {
		int status;
		int64_t ret = wait_task(tid, &status, timeout_ms);

		if (ret < 0)
			return ret;
		if (!WIFSTOPPED(status))
			return 0;
		if (STATUS_EVENT(status) == PTRACE_EVENT_STOP) {
			/* ptrace(2), "Group-stop": SIGTRAP is the answer to PTRACE_INTERRUPT alone. */
			if (stop_signal)
				*stop_signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
			mend_interrupted_call(tid);
			return 1;
		}
		if (ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status)) < 0 && errno != ESRCH)
			return fail(CAUSE_RESUME, tid, 0, -errno);
	}
}

enum stopping {
	STOPPING_SEIZED = 0, /* asked to stop */
	STOPPING_STOPPED = 1,
	STOPPING_LATER = 2, /* stopped by job control in a frozen cgroup: cannot be seized before that is thawed */
	STOPPING_ENDED = 3, /* not seen by the caller */
	STOPPING_WAITING = 4, /* waits in vfork(2), and is left alone there */
};

/* A thread that is to be stopped. lib/ffi/seized_tasks.ts has the same. */
struct stopping_task {
	int32_t pid, tid;
	int32_t stopping;
	int32_t stop_signal; /* of the group stop (job control) that holds it, or 0 */
};

#define SEIZE_CHILDREN 1     /* the whole tree */
#define SEIZE_REFRIGERATED 2 /* while it is frozen by a cgroup of version 1 */
#define SEIZE_NO_WAITERS 4   /* but those that wait in vfork(2), which could not be let go again */

/* A process, and whose child it is: of which process and which thread of it; 0 for the root. */
struct kinship {
	int32_t pid, parent, thread;
};

/* The threads of all processes, as one list that grows; all by their thread id. */
struct seizing {
	struct stopping_task *tasks;
	uint64_t count, room, options;
	uint32_t flags;
	uint8_t *known, *visited; /* bitmaps */
	struct kinship *queue;    /* processes to look at, of which there is room for as many */
	uint64_t queued;
};

#define MOST_PIDS (4 * 1024 * 1024) /* PID_MAX_LIMIT of linux/threads.h */
#define BITMAPS (2 * MOST_PIDS / 8)

static int is_marked(const uint8_t *bitmap, int32_t id)
{
	return bitmap[id / 8] >> (id % 8) & 1;
}

/* Sets a bit; returns whether it was set before. */
static int mark(uint8_t *bitmap, int32_t id)
{
	int was = is_marked(bitmap, id);

	bitmap[id / 8] |= 1 << (id % 8);
	return was;
}

static int is_id(long id)
{
	return id > 0 && id < MOST_PIDS;
}

static int64_t queue_process(struct seizing *all, int32_t pid, int32_t parent, int32_t thread)
{
	if (mark(all->visited, pid))
		return 0;
	if (all->queued == all->room)
		return fail(CAUSE_LIST_THREADS, pid, all->queued, -ENOBUFS);
	all->queue[all->queued++] = (struct kinship){ pid, parent, thread };
	return 0;
}

/*
 * Whether a frozen thread is, or may be, in a group stop. PTRACE_SEIZE waits until such a thread has moved to a stop
 * of ptrace (JOBCTL_TRAPPING in kernel/ptrace.c), which in the refrigerator of version 1 it never does; and the state
 * in /proc tells only that it is frozen. "0": a kernel that does not tell.
 */
static int may_be_in_group_stop(int32_t tid)
{
	char path[40], name[32] = "0";
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/wchan", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t length = read(fd, name, sizeof(name) - 1);

		if (length > 0)
			name[length] = 0;
		close(fd);
	}
	return !strcmp(name, "0") || !strcmp(name, "do_signal_stop");
}

/* Reads a small file of a thread as a string; "" when it is gone. */
static void read_of_thread(int32_t pid, int32_t tid, const char *name, char *text, size_t room)
{
	char path[64];
	ssize_t length = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, room - 1);
		close(fd);
	}
	text[length > 0 ? length : 0] = 0;
}

/* include/linux/sched.h */
#define PF_EXITING 0x4
#define PF_IO_WORKER 0x10

/* PF_*; 0 when it is gone. */
static unsigned long flags_of_thread(int32_t pid, int32_t tid)
{
	char text[512];
	unsigned long flags;
	const char *end;

	read_of_thread(pid, tid, "stat", text, sizeof(text));
	end = strrchr(text, ')');
	return end && sscanf(end, ") %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 ? flags : 0;
}

/* Attaches and asks for a stop. 0: done, 1: the thread has ended. */
static int64_t attach(int32_t tid, uint64_t options)
{
	if (ptrace(PTRACE_SEIZE, tid, 0, options) < 0) {
		int error = errno;

		/* One that ends cannot be seized: ESRCH; EPERM when it is a zombie, or has no memory any more. */
		if (error == ESRCH || (flags_of_thread(tid, tid) & PF_EXITING && !await_end(tid)) || has_ended(tid))
			return 1;
		return fail(CAUSE_SEIZE, tid, 0, -error);
	}
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 && errno != ESRCH)
		return fail(CAUSE_INTERRUPT, tid, 0, -errno);
	return 0;
}

#define KCMP_VM 1

static int has_child_in_its_memory(int32_t pid, int32_t tid)
{
	char text[4096], *at = text;

	read_of_thread(pid, tid, "children", text, sizeof(text));
	for (char *end;; at = end) {
		long id = strtol(at, &end, 10);

		if (end == at)
			return 0;
		if (syscall(SYS_kcmp, tid, id, KCMP_VM, 0, 0) == 0)
			return 1;
	}
}

/*
 * Whether a thread waits in vfork(2), or in clone(2) with CLONE_VFORK, for a child. As long as that stands, it does so
 * too (wait_for_vfork_done in kernel/fork.c): but for SIGKILL nothing else ends the wait.
 */
static int waits_in_vfork(int32_t pid, int32_t tid)
{
	unsigned long long nr, flags;
	char text[512];
	const char *end;

	read_of_thread(pid, tid, "stat", text, sizeof(text));
	end = strrchr(text, ')');
	if (!end || strncmp(end, ") D", 3))
		return 0;
	read_of_thread(pid, tid, "syscall", text, sizeof(text));
	if (sscanf(text, "%llu 0x%llx", &nr, &flags) != 2)
		return 0;
	/* The flags of clone3(2) are in its memory, which its child may have changed. */
	if (nr != SYS_vfork && nr != SYS_clone3 && !(nr == SYS_clone && flags & CLONE_VFORK))
		return 0;
	return has_child_in_its_memory(pid, tid);
}

static int64_t seize_thread(struct seizing *all, int32_t pid, int32_t tid)
{
	struct stopping_task task = { pid, tid, STOPPING_SEIZED, 0 };

	if (mark(all->known, tid))
		return 0;
	if (all->count == all->room)
		return fail(CAUSE_LIST_THREADS, pid, all->count, -ENOBUFS);
	if ((all->flags & SEIZE_NO_WAITERS) && waits_in_vfork(pid, tid)) {
		task.stopping = STOPPING_WAITING;
	} else if ((all->flags & SEIZE_REFRIGERATED) && may_be_in_group_stop(tid) && !has_ended(tid)) {
		task.stopping = STOPPING_LATER;
	} else {
		int64_t ret = attach(tid, all->options);

		if (ret)
			return ret < 0 ? ret : 0;
	}
	all->tasks[all->count++] = task;
	return 0;
}

/* proc_pid_children(5): ids with a blank behind each. */
static int64_t queue_children(struct seizing *all, int32_t pid, int32_t tid)
{
	char path[64], text[4096];
	int64_t ret = 0;
	int32_t id = 0;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0; /* the thread ended */
	while (!ret && (length = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < length && !ret; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				id = id * 10 + (text[i] - '0');
				continue;
			}
			if (is_id(id))
				ret = queue_process(all, id, pid, tid);
			id = 0;
		}
	close(fd);
	return ret;
}

static int64_t seize_with_children(struct seizing *all, int32_t pid, int32_t tid)
{
	int64_t ret = seize_thread(all, pid, tid);

	return !ret && (all->flags & SEIZE_CHILDREN) ? queue_children(all, pid, tid) : ret;
}

/*
 * Whether a thread works for an io_uring in the kernel ("iou-wrk-PID") and never comes out of it: nothing of it is
 * saved, the kernel starts such threads as it needs them.
 */
static int is_io_worker(int32_t pid, int32_t tid)
{
	char text[32];

	if (tid == pid)
		return 0;
	read_of_thread(pid, tid, "comm", text, sizeof(text));
	return !strncmp(text, "iou-", 4) && flags_of_thread(pid, tid) & PF_IO_WORKER;
}

/* getdents64(2); opendir(3) would allocate memory (tracer.c). */
static int64_t seize_process(struct seizing *all, int32_t pid, int32_t root)
{
	char path[40], names[4096] __attribute__((aligned(8)));
	int64_t ret = 0, length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* ESRCH: it ended on the way along the path (proc_pid_permission in fs/proc/base.c) */
	if (fd < 0 && (errno == ENOENT || errno == ESRCH))
		return pid == root ? fail(CAUSE_LIST_THREADS, pid, 0, -ESRCH) : 0;
	if (fd < 0)
		return fail(CAUSE_LIST_THREADS, pid, 0, -errno);
	while (!ret && (length = syscall(SYS_getdents64, fd, names, sizeof(names))) > 0)
		for (int64_t at = 0; at < length && !ret;) {
			const struct dirent64 *entry = (const void *)(names + at);
			long tid = atol(entry->d_name);

			at += entry->d_reclen;
			if (is_id(tid) && (is_marked(all->known, tid) || !is_io_worker(pid, tid)))
				ret = seize_with_children(all, pid, tid);
		}
	close(fd);
	return ret;
}

/* Seizes those that have ended to wait since the last time. Returns how many. */
static int64_t seize_former_waiters(struct seizing *all)
{
	int64_t seized = 0;

	for (uint64_t i = 0; i < all->count; i++) {
		struct stopping_task *task = &all->tasks[i];
		int64_t ret;

		if (task->stopping != STOPPING_WAITING || waits_in_vfork(task->pid, task->tid))
			continue;
		ret = attach(task->tid, all->options);
		if (ret < 0)
			return ret;
		task->stopping = ret ? STOPPING_ENDED : STOPPING_SEIZED;
		seized++;
	}
	return seized;
}

/*
 * Seizes every thread of `root` that is not among the `*count` tasks yet, and asks it to stop, without waiting;
 * `flags` are SEIZE_*, `options` PTRACE_O_*. What is new is appended, and counted also on failure. Processes that
 * have ended are passed over. Returns how many are new; -ENOBUFS: more than `room`, call again with more.
 * `kinships`, with room for `room` as well, gets all processes that were found, ended ones too, parents before their
 * children; `*found` is their number.
 */
EXPORT int64_t ckpt_seize(int32_t root, uint32_t flags, struct stopping_task *tasks, uint64_t *count, uint64_t room,
			  uint64_t options, struct kinship *kinships, uint64_t *found)
{
	struct seizing all = { .tasks = tasks, .count = *count, .room = room,
			       .options = options, .flags = flags, .queue = kinships };
	int64_t ret, former;

	if (!is_id(root))
		return fail(CAUSE_LIST_THREADS, root, 0, -ESRCH);
	all.known = mmap(NULL, BITMAPS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (all.known == MAP_FAILED)
		return fail(CAUSE_OUT_OF_MEMORY, root, BITMAPS, -ENOMEM);
	all.visited = all.known + MOST_PIDS / 8;
	for (uint64_t i = 0; i < all.count; i++)
		mark(all.known, tasks[i].tid);
	former = seize_former_waiters(&all);
	ret = former < 0 ? former : queue_process(&all, root, 0, 0);
	for (uint64_t i = 0; i < all.queued && !ret; i++)
		ret = seize_process(&all, all.queue[i].pid, root);
	*found = ret ? 0 : all.queued;
	munmap(all.known, BITMAPS);
	if (!ret)
		ret = all.count - *count + former;
	*count = all.count;
	return ret;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int64_t await_stop(struct stopping_task *task, uint64_t options, int timeout_ms)
{
	int64_t ret;

	if (task->stopping == STOPPING_LATER) {
		ret = attach(task->tid, options);
		if (ret) {
			if (ret > 0)
				task->stopping = STOPPING_ENDED;
			return ret < 0 ? ret : 0;
		}
		task->stopping = STOPPING_SEIZED;
	}
	ret = wait_interrupted(task->tid, timeout_ms, &task->stop_signal);
	if (ret == 1)
		task->stopping = STOPPING_STOPPED;
	else if (ret == 0 || ret == -ESRCH)
		task->stopping = STOPPING_ENDED;
	return ret == -ESRCH || ret > 0 ? 0 : ret;
}

/* How long to wait until it is seen that ckpt is gone, for which this is done (tracer.c). */
#define ABANDONED_MS 50

static int64_t await_stop_for_long(struct stopping_task *task, uint64_t options, int64_t timeout_ms)
{
	int64_t end = now_ms() + timeout_ms, rest = timeout_ms, ret;

	do {
		ret = await_stop(task, options, rest < ABANDONED_MS ? rest : ABANDONED_MS);
		rest = end - now_ms();
	} while (ret == -ETIMEDOUT && rest > 0 && !is_abandoned());
	return ret;
}

#define VFORK_PATIENCE_MS 20
#define RESUMED_TIMEOUT_MS 1000

/*
 * A task in vfork(2) cannot stop before its child executes a program or ends (wait_for_vfork_done in kernel/fork.c),
 * and the child stands already: lets those go on that use its memory. Returns how many.
 */
static uint64_t resume_vfork_children(const struct stopping_task *parent, struct stopping_task *tasks, uint64_t count)
{
	uint64_t resumed = 0;

	for (uint64_t i = 0; i < count; i++) {
		struct stopping_task *task = &tasks[i];

		if (task->pid == parent->pid || task->stopping != STOPPING_STOPPED || task->stop_signal ||
		    syscall(SYS_kcmp, parent->tid, task->tid, KCMP_VM, 0, 0) != 0)
			continue;
		if (ptrace(PTRACE_CONT, task->tid, 0, 0) < 0)
			continue;
		task->stopping = STOPPING_SEIZED;
		resumed++;
	}
	return resumed;
}

/* Stops those again that were let go on. */
static int64_t stop_resumed(struct stopping_task *tasks, uint64_t count, uint64_t options, int timeout_ms)
{
	int64_t first = 0;

	for (uint64_t i = 0; i < count; i++)
		if (tasks[i].stopping == STOPPING_SEIZED)
			ptrace(PTRACE_INTERRUPT, tasks[i].tid, 0, 0);
	for (uint64_t i = count; i-- > 0;) {
		int64_t ret = tasks[i].stopping == STOPPING_SEIZED ? await_stop(&tasks[i], options, timeout_ms) : 0;

		if (ret < 0 && !first)
			first = ret;
	}
	return first;
}

/*
 * Waits until all seized tasks have stopped; those that have ended are taken off the list. All of it may take
 * `timeout_ms`. On failure the others have stopped nevertheless, as far as they do. Returns 0; -ETIMEDOUT.
 */
EXPORT int64_t ckpt_await_stops(struct stopping_task *tasks, uint64_t *count, uint64_t options, int32_t timeout_ms)
{
	int64_t end = now_ms() + timeout_ms, first = 0;
	struct cause cause = { 0 };
	uint64_t left = 0;

	/* Backwards: the end of a leader is reported when all other threads are gone. */
	for (uint64_t i = *count; i-- > 0;) {
		int64_t rest = is_abandoned() ? 0 : end - now_ms(), ret;

		if (tasks[i].stopping == STOPPING_STOPPED || tasks[i].stopping == STOPPING_WAITING)
			continue;
		rest = rest > 0 ? rest : 0;
		ret = await_stop(&tasks[i], options, rest < VFORK_PATIENCE_MS ? rest : VFORK_PATIENCE_MS);
		if (ret == -ETIMEDOUT && rest > VFORK_PATIENCE_MS) {
			/* Behind it in the list all have been waited for. */
			uint64_t behind = *count - i - 1;
			struct stopping_task *others = &tasks[i + 1];
			uint64_t resumed = resume_vfork_children(&tasks[i], others, behind);

			ret = await_stop_for_long(&tasks[i], options, rest - VFORK_PATIENCE_MS);
			if (resumed)
				stop_resumed(others, behind, options, RESUMED_TIMEOUT_MS);
		}
		if (ret < 0 && !first) {
			first = ret;
			ckpt_cause(&cause);
		}
	}
	for (uint64_t i = 0; i < *count; i++)
		if (tasks[i].stopping != STOPPING_ENDED)
			tasks[left++] = tasks[i];
	*count = left;
	return first ? fail(cause.step, cause.tid, cause.value, first) : 0;
}

/* Seizes one thread and asks it to stop, for ckpt_await_thread; the others run on. */
EXPORT int64_t ckpt_ask_thread(int32_t tid, uint64_t options)
{
	if (ptrace(PTRACE_SEIZE, tid, 0, options) < 0)
		return fail(CAUSE_SEIZE, tid, 0, -errno);
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return fail(CAUSE_INTERRUPT, tid, 0, -errno);
	return 0;
}

/* Waits until it has stopped. Returns 0; -ESRCH when it is gone. */
EXPORT int64_t ckpt_await_thread(int32_t tid, int32_t timeout_ms)
{
	int64_t ret = wait_interrupted(tid, timeout_ms, NULL);

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
	int64_t ret = wait_interrupted(pid, WAIT_FOREVER, NULL);

	if (ret < 0)
		return ret;
	if (ret == 0)
		return fail(CAUSE_GONE, pid, 0, -ESRCH);
	if (ptrace(PTRACE_SETOPTIONS, pid, 0, options) < 0)
		return fail(CAUSE_RESUME, pid, 0, -errno);
	return 0;
}

/* From now on the threads end when their tracer does. */
EXPORT int64_t ckpt_end_with_tracer(const int32_t *tids, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (ptrace(PTRACE_SETOPTIONS, tids[i], 0, PTRACE_O_EXITKILL) < 0)
			return fail(CAUSE_RESUME, tids[i], 0, -errno);
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
	/* A leader that is not traced: it has ended, or waits in vfork(2). */
	return count && tids[0] == pid ? 0 : await_end(pid);
}
