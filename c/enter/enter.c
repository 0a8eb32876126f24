/*
 * The process that a user called as ckpt, when the work has to be done from inside other namespaces: those of a task
 * that is dumped, or new ones that a restore fills. It starts ckpt once more in there, hands on signals, does what
 * nobody inside can do (wait for the init of a pid namespace, and outlive it), and ends as ckpt did.
 *
 * A program of its own, executed by ckpt in its own place (lib/ns/enter.ts): one thread, no libc, no data. When it
 * is killed, the ckpt inside is, too (PR_SET_PDEATHSIG).
 *
 *     ckpt (a)  --execve-->  this (a)  --fork-->  between  --setns, fork-->  ckpt (b)
 */
#include <linux/close_range.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <asm/errno.h>
#include <asm/resource.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <stddef.h>
#include "../agent/raw_call.h"
#include "enter.h"

/* Of libc's headers, which do not go together with the kernel's. */
enum {
	AF_UNIX = 1,
	SOCK_SEQPACKET = 5,
	MSG_DONTWAIT = 0x40,
	WNOHANG = 1,
	INPUT = 1, /* POLLIN */
	IGNORED = 1, /* SIG_IGN */
	STAT_SIZE = 144,
	STAT_INO = 8,
};

struct clone_call {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* Shared with the processes in between, which tell what they have started or why they could not. */
struct shared {
	int32_t child; /* pid of what a process in between has made, from its birth on: the kernel writes it */
	int64_t step, error;
};

struct enter {
	int64_t parameters[PARAMETERS];
	char **argv, **envp;
	uint64_t mask; /* of signals, as it was */
	int channel[2]; /* ours, that of the ckpt inside */
	int lifeline[2]; /* of an agent, or -1 */
	int64_t agent; /* pid; 0: none */
	int root; /* pidfd of the root of the tree */
	struct shared *shared;
};

static int64_t call1(int64_t nr, uint64_t a)
{
	return raw_call(nr, a, 0, 0, 0, 0, 0);
}

static int64_t call3(int64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	return raw_call(nr, a, b, c, 0, 0, 0);
}

static int64_t call4(int64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	return raw_call(nr, a, b, c, d, 0, 0);
}

static void leave(int64_t code)
{
	for (;;)
		call1(__NR_exit_group, code);
}

static int64_t set_mask(uint64_t mask, uint64_t *before)
{
	return call4(__NR_rt_sigprocmask, SIG_SETMASK, (uint64_t)&mask, (uint64_t)before, 8);
}

static uint64_t bit(int signal)
{
	return 1UL << (signal - 1);
}

static int64_t open_file(const char *path, int flags)
{
	return call4(__NR_openat, AT_FDCWD, (uint64_t)path, flags | O_CLOEXEC, 0);
}

static uint64_t length(const char *text)
{
	uint64_t n = 0;

	while (text[n])
		n++;
	return n;
}

static char *append(char *to, const char *text)
{
	while ((*to = *text++))
		to++;
	return to;
}

static char *append_number(char *to, int64_t value)
{
	char digits[24];
	int i = sizeof(digits);
	uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

	digits[--i] = 0;
	do
		digits[--i] = '0' + rest % 10;
	while (rest /= 10);
	if (value < 0)
		digits[--i] = '-';
	return append(to, digits + i);
}

/* Numbers with a space between; returns how many. */
static int parse(const char *text, int64_t *to, int most)
{
	int count = 0;

	while (*text && count < most) {
		int negative = *text == '-';
		int64_t value = 0;

		text += negative;
		while (*text >= '0' && *text <= '9')
			value = 10 * value + *text++ - '0';
		to[count++] = negative ? -value : value;
		while (*text == ' ')
			text++;
	}
	return count;
}

static int64_t write_text(const char *path, const char *text)
{
	int64_t fd = open_file(path, O_WRONLY), ret;

	if (fd < 0)
		return fd;
	ret = call3(__NR_write, fd, (uint64_t)text, length(text));
	call1(__NR_close, fd);
	return ret < 0 ? ret : 0;
}

/* The ids of the namespaces that we are in, by the names in /proc/self/ns, in alphabetical order. */
static char *append_namespaces(char *to)
{
	const char names[] = "cgroup\0ipc\0mnt\0net\0pid\0time\0user\0uts\0";

	for (const char *name = names; *name; name += length(name) + 1) {
		char path[32], status[STAT_SIZE];

		append(append(path, "/proc/self/ns/"), name);
		to = append(to, " ");
		to = append_number(to, call4(__NR_newfstatat, AT_FDCWD, (uint64_t)path, (uint64_t)status, 0) < 0 ?
					       0 :
					       *(int64_t *)(status + STAT_INO));
	}
	return to;
}

/* Becomes ckpt, with `value` in its environment. Returns only on failure. */
static int64_t become_ckpt(struct enter *enter, const char *value)
{
	char variable[512];
	uint64_t count = 0;
	char **envp;

	while (enter->envp[count])
		count++;
	envp = (char **)raw_call(__NR_mmap, 0, (count + 2) * sizeof(*envp), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint64_t i = 0; i < count; i++)
		envp[i] = enter->envp[i];
	append(append(variable, VARIABLE "="), value);
	envp[count] = variable;
	envp[count + 1] = NULL;
	set_mask(enter->mask, NULL);
	return raw_call(__NR_execveat, enter->parameters[BINARY], (uint64_t)"", (uint64_t)enter->argv, (uint64_t)envp,
			AT_EMPTY_PATH, 0);
}

/* `child`: where the pid goes before the child runs; NULL: nowhere. */
static int64_t fork_as(uint64_t flags, uint64_t exit_signal, int64_t pid, int32_t *child)
{
	struct clone_call call;
	uint64_t *words = (uint64_t *)&call;

	for (uint64_t i = 0; i < sizeof(call) / sizeof(*words); i++)
		((volatile uint64_t *)words)[i] = 0;
	call.flags = flags | (child ? CLONE_PARENT_SETTID : 0);
	call.parent_tid = (uint64_t)child;
	call.exit_signal = exit_signal;
	if (pid) {
		call.set_tid = (uint64_t)&pid;
		call.set_tid_size = 1;
	}
	return call3(__NR_clone3, (uint64_t)&call, sizeof(call), 0);
}

static void fail_in_child(struct enter *enter, int step, int64_t error)
{
	enter->shared->step = step;
	enter->shared->error = error;
	leave(127);
}

/* Waits for a process in between. Returns the pid of its child; -errno, also when it was killed before it had one. */
static int64_t child_after(struct enter *enter, int64_t between)
{
	struct shared *shared = enter->shared;

	call4(__NR_wait4, between, 0, 0, 0);
	if (!shared->step && !shared->child) {
		shared->step = STEP_FORK;
		shared->error = -ECHILD;
	}
	return shared->step ? shared->error : shared->child;
}

/* A proc file system of the pid namespace, over that of ours; in a copy of our mount namespace, which nobody else sees. */
static int64_t mount_proc(void)
{
	int64_t ret;

	/* Not a mount point where ckpt's root directory is none: then /proc alone matters. */
	raw_call(__NR_mount, 0, (uint64_t)"/", 0, MS_SLAVE | MS_REC, 0, 0);
	ret = raw_call(__NR_mount, 0, (uint64_t)"/proc", 0, MS_PRIVATE, 0, 0);
	return ret < 0 ? ret : raw_call(__NR_mount, (uint64_t)"proc", (uint64_t)"/proc", (uint64_t)"proc",
					MS_NOSUID | MS_NODEV | MS_NOEXEC, 0, 0);
}

/* Runs in the namespaces. */
static void be_inside(struct enter *enter)
{
	int64_t *p = enter->parameters;
	struct pollfd peer = { .fd = enter->channel[1], .events = INPUT };
	char value[400], *to = value;
	int64_t ret;

	call3(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0);
	call1(__NR_close, enter->channel[0]);
	/* Killed before we asked to be told. */
	if (call3(__NR_poll, (uint64_t)&peer, 1, 0) > 0)
		leave(127);
	if (p[FLAGS] & CLONE_NEWPID) {
		ret = mount_proc();
		if (ret < 0)
			fail_in_child(enter, STEP_MOUNT_PROC, ret);
	}
	if (p[OWN_PID]) {
		/* Our threads come after us, where the tree needs no ids. */
		char last[24];

		append_number(last, p[OWN_PID]);
		ret = write_text("/proc/sys/kernel/ns_last_pid", last);
		if (ret < 0)
			fail_in_child(enter, STEP_CHOOSE_PID, ret);
	}
	to = append_number(to, enter->channel[1]);
	to = append_number(append(to, " "), enter->lifeline[1]);
	to = append_number(append(to, " "), p[ROOT_INSIDE]);
	to = append_number(append(to, " "), enter->agent ? enter->agent : p[ROOT_OUTSIDE]);
	to = append_number(append(to, " "), p[FLAGS]);
	to = append_number(append(to, " "), p[DIRECTORY]);
	/* Our own namespaces; enter_main has put them before ckpt's arguments. */
	append(append(to, " "), enter->argv[-1]);
	call3(__NR_fcntl, enter->channel[1], F_SETFD, 0);
	call3(__NR_fcntl, p[DIRECTORY], F_SETFD, 0);
	if (enter->lifeline[1] >= 0)
		call3(__NR_fcntl, enter->lifeline[1], F_SETFD, 0);
	fail_in_child(enter, STEP_EXECUTE, become_ckpt(enter, value));
}

/* Starts ckpt in the namespaces of the root, as our child. Returns its pid. */
static int64_t start_inside(struct enter *enter)
{
	int64_t *p = enter->parameters;
	int64_t between, pid;

	enter->shared->child = 0;
	between = fork_as(0, SIGCHLD, 0, NULL);
	if (between < 0) {
		enter->shared->step = STEP_FORK;
		enter->shared->error = between;
		return between;
	}
	if (between == 0) {
		int64_t ret = call3(__NR_setns, enter->root, p[FLAGS], 0);

		if (ret < 0)
			fail_in_child(enter, STEP_JOIN, ret);
		if (p[FLAGS] & CLONE_NEWPID) {
			ret = call1(__NR_unshare, CLONE_NEWNS);
			if (ret < 0)
				fail_in_child(enter, STEP_MOUNT_PROC, ret);
		}
		pid = fork_as(CLONE_PARENT, 0, p[OWN_PID], &enter->shared->child);
		if (pid < 0)
			fail_in_child(enter, p[OWN_PID] ? STEP_CHOOSE_PID : STEP_FORK, pid);
		if (pid == 0)
			be_inside(enter);
		leave(0);
	}
	return child_after(enter, between);
}

/* The agent waits for its tracer, the ckpt inside, or for the end of what holds its lifeline. */
static void be_agent(struct enter *enter)
{
	const char name[] = "ckpt-agent";
	const char *argv[] = { name, NULL };
	struct rlimit64 {
		uint64_t soft, hard;
	} nofile;
	struct {
		uint64_t handler, flags, restorer, mask;
	} dfl = { 0, 0, 0, 0 };

	for (int signal = 1; signal <= 64; signal++)
		call4(__NR_rt_sigaction, signal, (uint64_t)&dfl, 0, 8);
	set_mask(~0UL, NULL);
	call3(__NR_dup3, enter->lifeline[0], 0, 0);
	call3(__NR_close_range, 1, ~0U, CLOSE_RANGE_CLOEXEC);
	call4(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, (uint64_t)&nofile);
	nofile.soft = nofile.hard;
	call4(__NR_prlimit64, 0, RLIMIT_NOFILE, (uint64_t)&nofile, 0);
	fail_in_child(enter, STEP_EXECUTE,
		      raw_call(__NR_execveat, enter->parameters[TARGET], (uint64_t)"", (uint64_t)argv,
			       (uint64_t)&argv[1], AT_EMPTY_PATH, 0));
}

/* Starts the agent that is to be the root of the tree, in new namespaces; it is executed by then (CLONE_VFORK). */
static int64_t start_agent(struct enter *enter, const char *clock_offsets)
{
	int64_t *p = enter->parameters;
	uint64_t flags = p[FLAGS] & ~(uint64_t)CLONE_NEWTIME;
	/* The init of a new pid namespace gets its pid by itself. */
	int64_t wanted = flags & CLONE_NEWPID ? 0 : p[ROOT_INSIDE];
	struct shared *shared = enter->shared;
	int64_t ret, pid;

	shared->step = STEP_CLOCKS;
	if (p[FLAGS] & CLONE_NEWTIME) {
		ret = call1(__NR_unshare, CLONE_NEWTIME);
		if (ret == 0)
			ret = write_text("/proc/self/timens_offsets", clock_offsets);
		if (ret < 0)
			return shared->error = ret;
	}
	shared->step = STEP_MAKE;
	ret = call3(__NR_pipe2, (uint64_t)enter->lifeline, O_CLOEXEC, 0);
	if (ret < 0)
		return shared->error = ret;
	shared->step = 0;
	if (p[PARENT] == PARENT_NOBODY) {
		int64_t between = fork_as(0, SIGCHLD, 0, NULL);

		if (between == 0) {
			pid = fork_as(flags | CLONE_VFORK, SIGCHLD, wanted, &shared->child);
			if (pid == 0)
				be_agent(enter);
			if (pid < 0)
				fail_in_child(enter, STEP_MAKE, pid);
			leave(0);
		}
		pid = between > 0 ? child_after(enter, between) : between;
	} else {
		int sibling = p[PARENT] == PARENT_OURS;

		pid = fork_as(flags | CLONE_VFORK | (sibling ? CLONE_PARENT : 0), sibling ? 0 : SIGCHLD, wanted, NULL);
		if (pid == 0)
			be_agent(enter);
	}
	if (shared->step)
		return shared->error;
	if (pid < 0) {
		shared->step = STEP_MAKE;
		return shared->error = pid;
	}
	enter->agent = pid;
	enter->root = ret = call3(__NR_pidfd_open, pid, 0, 0);
	if (ret < 0) {
		shared->step = STEP_MAKE;
		shared->error = ret;
	}
	return ret;
}

/* Returns whether it has ended. */
static int await_end_of_root(struct enter *enter, int timeout_ms)
{
	struct pollfd root = { .fd = enter->root, .events = INPUT };
	int64_t ret;

	do
		ret = call3(__NR_poll, (uint64_t)&root, 1, timeout_ms);
	while (ret == -EINTR);
	return ret > 0;
}

/* Ends as another process has ended. */
static void end_as(struct enter *enter, int status)
{
	int signal = status & 0x7f;

	if (signal == 0)
		leave(status >> 8 & 0xff);
	set_mask(enter->mask & ~bit(signal), NULL);
	call3(__NR_kill, call1(__NR_getpid, 0), signal, 0);
	leave(128 + signal);
}

/* Prints what the ckpt inside has prepared, for a status that it could not know. */
static void tell(const char *texts, int status)
{
	int signal = status & 0x7f;
	const char *before = texts, *after = before + length(before) + 1;
	char text[MESSAGE_TEXT + 32];
	char *end;

	if (signal) {
		before = after + length(after) + 1;
		after = before + length(before) + 1;
	}
	if (!*before)
		return;
	end = append(append_number(append(text, before), signal ? signal : status >> 8 & 0xff), after);
	call3(__NR_write, 1, (uint64_t)text, end - text);
}

/* All that happens while the ckpt inside works, and until its tree has ended where it is to be waited for. */
static void accompany(struct enter *enter, int64_t ckpt, uint64_t caught)
{
	struct message message;
	uint64_t unheard = 0; /* signals for a ckpt that may not have noticed them */
	int status = -1, agent_status = -1, ending = -1, released = -1;
	struct pollfd ends[2] = {
		{ .fd = call4(__NR_signalfd4, -1, (uint64_t)&caught, 8, O_CLOEXEC | O_NONBLOCK), .events = INPUT },
		{ .fd = enter->channel[0], .events = INPUT },
	};

	for (;;) {
		struct {
			uint32_t number, error;
			int32_t code;
			uint8_t rest[116];
		} info;
		int ended, child;
		int64_t pid;

		call3(__NR_poll, (uint64_t)ends, 2, -1);
		while (call3(__NR_read, ends[0].fd, (uint64_t)&info, sizeof(info)) == sizeof(info)) {
			/* What a terminal sends, all of its group have got. */
			int by_terminal = info.code > 0;

			if (info.number == SIGCHLD)
				continue;
			if (status < 0 && !by_terminal) {
				call3(__NR_kill, ckpt, info.number, 0);
				unheard |= bit(info.number);
			}
			if (status >= 0 && (!by_terminal || released & RELEASED_PASS_TERMINAL))
				call4(__NR_pidfd_send_signal, enter->root, info.number, 0, 0);
		}
		while ((pid = call4(__NR_wait4, -1, (uint64_t)&child, WNOHANG, 0)) > 0) {
			if (pid == ckpt)
				status = child;
			if (pid == enter->agent)
				agent_status = child;
		}
		ended = status >= 0;
		/* What was said last may be read after the end. */
		while (ends[1].fd >= 0) {
			int64_t got = raw_call(__NR_recvfrom, ends[1].fd, (uint64_t)&message, sizeof(message),
					       MSG_DONTWAIT, 0, 0);

			if (got == -EAGAIN)
				break;
			if (got < (int64_t)offsetof(struct message, texts)) {
				ends[1].fd = -1;
				break;
			}
			if (message.kind == MESSAGE_ENDING)
				ending = message.value;
			else
				released = message.value;
		}
		if (!ended)
			continue;
		/* An agent that was not let go ends with its tracer. */
		if (ending >= 0 || (enter->agent && (released < 0 || status >> 8 & 0xff)))
			await_end_of_root(enter, -1);
		if (ending >= 0 && (status & 0x7f) == SIGKILL)
			leave(ending);
		if (released < 0 || status >> 8 & 0xff)
			end_as(enter, status);
		if (!(released & RELEASED_WAIT)) {
			/* Where the init of its pid namespace ends at once, ckpt is ended, too. */
			if ((status & 0x7f) != SIGKILL || !await_end_of_root(enter, 0))
				end_as(enter, status);
			call3(__NR_write, 1, (uint64_t)message.texts, length(message.texts));
			leave(0);
		}
		/* It had let its tree go already. */
		for (int signal = 1; unheard; signal++) {
			if (unheard & bit(signal))
				call4(__NR_pidfd_send_signal, enter->root, signal, 0, 0);
			unheard &= ~bit(signal);
		}
		if (agent_status >= 0) {
			tell(message.texts, agent_status);
			leave(agent_status & 0x7f ? 128 + (agent_status & 0x7f) : agent_status >> 8 & 0xff);
		}
	}
}

static void set_close_on_exec(int64_t fd)
{
	call3(__NR_fcntl, fd, F_SETFD, FD_CLOEXEC);
}

/* The signals that are handed on, and the end of children; not those that we were started to ignore. */
static uint64_t signals_to_catch(void)
{
	const char numbers[] = { SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGWINCH, SIGCONT, 0 };
	uint64_t caught = bit(SIGCHLD), by_default[4] = { 0 };

	/* Whoever ignores it does not learn of the end of a child. */
	call4(__NR_rt_sigaction, SIGCHLD, (uint64_t)by_default, 0, 8);
	for (const char *signal = numbers; *signal; signal++) {
		uint64_t action[4];

		call4(__NR_rt_sigaction, *signal, 0, (uint64_t)action, 8);
		if (action[0] != IGNORED)
			caught |= bit(*signal);
	}
	return caught;
}

/*
 * argv: a name, the offsets of clocks, the parameters and namespaces (see below), and ckpt's own from its name on.
 */
__attribute__((used)) void enter_main(uint64_t *stack)
{
	struct enter enter;
	char text[400], value[64];
	uint64_t caught = signals_to_catch();
	const char *clock_offsets;
	int64_t ckpt;

	enter.argv = (char **)(stack + 1);
	enter.envp = enter.argv + stack[0] + 1;
	if (stack[0] < 4 || parse(enter.argv[2], enter.parameters, PARAMETERS) != PARAMETERS)
		leave(127);
	clock_offsets = enter.argv[1];
	append_namespaces(text);
	enter.argv[2] = text + 1;
	enter.argv += 3;
	enter.lifeline[0] = enter.lifeline[1] = -1;
	enter.agent = 0;
	enter.root = enter.parameters[TARGET];
	set_close_on_exec(enter.parameters[BINARY]);
	set_close_on_exec(enter.parameters[TARGET]);
	set_close_on_exec(enter.parameters[DIRECTORY]);
	set_mask(caught, &enter.mask);
	set_mask(caught | enter.mask, NULL);
	enter.shared = (struct shared *)raw_call(__NR_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
						 -1, 0);
	call4(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | O_CLOEXEC, 0, (uint64_t)enter.channel);
	if (enter.parameters[PARENT] == PARENT_OF_NONE || start_agent(&enter, clock_offsets) >= 0) {
		ckpt = start_inside(&enter);
		if (ckpt > 0) {
			call1(__NR_close, enter.channel[1]);
			call1(__NR_close, enter.lifeline[0]);
			call1(__NR_close, enter.lifeline[1]);
			accompany(&enter, ckpt, caught);
		}
	}
	/* Nothing was begun: ckpt tells why, as it tells everything. */
	if (enter.agent)
		call3(__NR_kill, enter.agent, SIGKILL, 0);
	append_number(append(append_number(append(value, "error "), enter.shared->step), " "), -enter.shared->error);
	become_ckpt(&enter, value);
	leave(127);
}

__asm__(".section .text.entry, \"ax\"\n"
	".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call enter_main\n"
	"	ud2\n"
	".text\n");
