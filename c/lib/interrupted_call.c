/*
 * System calls that the kernel ends with EINTR at any stop, even when no handler runs (signal(7), "Interruption of
 * system calls and library functions by stop signals"). Each has done nothing by then. Our stop must not show, so
 * such a call is told to the kernel as one that begins again unless a handler runs (ERESTARTNOHAND): then the kernel
 * itself decides when the thread goes on, whatever signal came meanwhile, and also when we are gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include "ckpt.h"

#define ERESTARTNOHAND 514 /* include/linux/errno.h; never seen by programs */
#define USER_CS 0x33       /* 64-bit code (asm/segment.h) */

static int ended_by_any_stop(uint64_t nr)
{
	switch (nr) {
	/* With a timeout on the socket (sock_intr_errno in include/net/sock.h). */
	case SYS_read:
	case SYS_write:
	case SYS_readv:
	case SYS_writev:
	case SYS_connect:
	case SYS_accept:
	case SYS_accept4:
	case SYS_sendto:
	case SYS_recvfrom:
	case SYS_sendmsg:
	case SYS_recvmsg:
	case SYS_sendmmsg:
	case SYS_recvmmsg:
	/* ipc/sem.c, kernel/signal.c, fs/eventpoll.c, fs/aio.c */
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_rt_sigtimedwait:
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case 441: /* epoll_pwait2 */
	case SYS_io_getevents:
	/* io_run_task_work_sig in io_uring/io_uring.c: only when nothing was submitted. */
	case 426: /* io_uring_enter */
		return 1;
	}
	return 0;
}

/* For a thread that has just stopped. A failure leaves it as it is: the thread is gone. */
void mend_interrupted_call(pid_t tid)
{
	struct user_regs_struct regs;

	if (get_registers(tid, &regs) < 0 || regs.cs != USER_CS || (int64_t)regs.orig_rax < 0 ||
	    (int64_t)regs.rax != -EINTR || !ended_by_any_stop(regs.orig_rax))
		return;
	regs.rax = -ERESTARTNOHAND;
	set_registers(tid, &regs);
}
