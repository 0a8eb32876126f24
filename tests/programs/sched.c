/* Scheduling of each thread: policy, priority, reset-on-fork, nice, affinity, I/O priority. */
#include "check.h"
#include <sched.h>
#include <sys/resource.h>

#define THREADS 8
struct attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t clamp_min, clamp_max;
};
struct seen {
  struct attributes attributes;
  int nice, io;
  cpu_set_t cpus;
};
static struct {
  pthread_t id;
  struct seen before, after;
} threads[THREADS];
static atomic_int built;

static void look(struct seen *seen) {
  memset(seen, 0, sizeof(*seen));
  seen->attributes.size = sizeof(seen->attributes);
  syscall(SYS_sched_getattr, 0, &seen->attributes, sizeof(seen->attributes), 0);
  seen->nice = getpriority(PRIO_PROCESS, (id_t)check_tid());
  seen->io = (int)syscall(SYS_ioprio_get, 1, 0);
  sched_getaffinity(0, sizeof(seen->cpus), &seen->cpus);
}

static void *run(void *argument) {
  static const int policies[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_FIFO, SCHED_RR, SCHED_OTHER, SCHED_FIFO, SCHED_OTHER};
  int i = (int)(long)argument, policy = policies[i];
  struct sched_param priority = {.sched_priority = policy == SCHED_FIFO || policy == SCHED_RR ? 5 + i : 0};
  MUST(setpriority(PRIO_PROCESS, (id_t)check_tid(), i - 4));
  int flags = i == 5 || i == 6 ? SCHED_RESET_ON_FORK : 0;
  if (sched_setscheduler(0, policy | flags, &priority)) {
    if (errno != EPERM || !priority.sched_priority) check_die("policy %d: %s", policy, strerror(errno));
    check_note("real-time policy %d is not permitted here", policy);
  }
  cpu_set_t cpus;
  sched_getaffinity(0, sizeof(cpus), &cpus);
  if (i % 2)
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET(cpu, &cpus)) {
        CPU_ZERO(&cpus);
        CPU_SET(cpu, &cpus);
        break;
      }
  MUST(sched_setaffinity(0, sizeof(cpus), &cpus));
  /* class best effort, level i; thread 7: idle class */
  if (i) MUST(syscall(SYS_ioprio_set, 1, 0, i == 7 ? 3 << 13 : (2 << 13 | i)));
  look(&threads[i].before);
  atomic_fetch_add(&built, 1);
  check_wait_go();
  look(&threads[i].after);
  return NULL;
}

static void compare(const char *who, struct seen *a, struct seen *b) {
  CHECK_EQ("policy of %s", a->attributes.policy, b->attributes.policy, who);
  CHECK_EQ("flags of %s", a->attributes.flags, b->attributes.flags, who);
  CHECK_EQ("priority of %s", a->attributes.priority, b->attributes.priority, who);
  CHECK_EQ("nice attribute of %s", a->attributes.nice, b->attributes.nice, who);
  CHECK_EQ("slice of %s", a->attributes.runtime, b->attributes.runtime, who);
  CHECK_EQ("nice of %s", a->nice, b->nice, who);
  CHECK_EQ("I/O priority of %s", a->io, b->io, who);
  CHECK_BYTES("affinity of %s", &a->cpus, &b->cpus, sizeof(a->cpus), who);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct seen before, after;
  for (long i = 0; i < THREADS; i++) MUST0(pthread_create(&threads[i].id, NULL, run, (void *)i));
  while (atomic_load(&built) < THREADS) check_sleep_ms(1);
  MUST(setpriority(PRIO_PROCESS, 0, 7));
  look(&before);

  check_ready();

  look(&after);
  compare("the main thread", &before, &after);
  for (int i = 0; i < THREADS; i++) {
    MUST0(pthread_join(threads[i].id, NULL));
    compare(check_name("thread %d", i), &threads[i].before, &threads[i].after);
  }
  return check_finish();
}
