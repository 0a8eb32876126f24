/* The list of all file locks of the host. */
#include <fcntl.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include "ckpt.h"

/* Shorter than any grace period. */
#define PAUSE_NANOSECONDS 2000000

/*
 * /proc/locks shuts out all who take locks, and for that waits for a grace period of RCU, some 10 ms (locks_start in
 * fs/locks.c, percpu_down_write); who reads it within the next one waits no more (kernel/rcu/sync.c). So this reads it
 * again and again, beside all else, until `*end` is not 0: then no other reader waits.
 */
EXPORT int64_t ckpt_keep_locks_ready(const uint8_t *end)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NANOSECONDS };
	char byte;
	int fd = open("/proc/locks", O_RDONLY | O_CLOEXEC);

	/* Who needs the list will see why it cannot be read. */
	while (fd >= 0 && !__atomic_load_n(end, __ATOMIC_RELAXED)) {
		if (pread(fd, &byte, 1, 0) < 0)
			break;
		nanosleep(&pause, NULL);
	}
	if (fd >= 0)
		close(fd);
	return 0;
}
