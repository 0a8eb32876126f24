/*
 * The program that is dumped and restored while ckpt is built, so that V8 gets to know which functions run then
 * (training.ts). It has what most programs have: threads, a child, a pipe, an epoll, a timer, signal handlers, files.
 * With an argument it has no child: some things are done another way then. It writes its pid, closes its standard
 * output when it is ready, and ends after a minute. Its parent ends when it and its child are gone and their pids free,
 * for which an init is not to be relied on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void ignore(int signal)
{
	(void)signal;
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void check(int ok)
{
	if (!ok)
		exit(1);
}

int main(int argc, char **argv)
{
	int ends[2], set, null;
	struct epoll_event event = { .events = EPOLLIN };
	pthread_t thread;
	char byte;

	/* What make hands on is none of the program's. */
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	switch (fork()) {
	case -1:
		return 1;
	case 0:
		break;
	default:
		close(1);
		while (wait(NULL) > 0)
			;
		return 0;
	}
	setsid();
	alarm(60);
	printf("%d", getpid());
	fflush(stdout);
	check(argc > 0 && open(argv[0], O_RDONLY | O_CLOEXEC) >= 0);
	check(signal(SIGUSR1, ignore) != SIG_ERR && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	check(pipe(ends) == 0 && (set = epoll_create1(0)) >= 0);
	event.data.fd = eventfd(0, EFD_NONBLOCK);
	check(epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event) == 0);
	check(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	switch (argc > 1 ? getpid() : fork()) {
	case -1:
		return 1;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(1);
		close(ends[1]);
		return read(ends[0], &byte, 1) < 0;
	}
	for (int i = 0; i < 2; i++)
		check(pthread_create(&thread, NULL, sleeper, NULL) == 0);
	null = open("/dev/null", O_WRONLY);
	check(dup2(null, 1) == 1);
	close(null);
	for (;;)
		epoll_wait(set, &event, 1, -1);
}
