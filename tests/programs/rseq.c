/* Restartable sequences: the C library's registration stays, an interrupted critical section is aborted. */
#include "check.h"
#include <sched.h>
#include <sys/rseq.h>

#define THREADS 4
static struct {
  pthread_t id;
  atomic_int tid;
  unsigned before, after;
  int again;
  long rounds, aborts;
  int valid;
} threads[THREADS];

extern const ptrdiff_t __rseq_offset;
extern const unsigned int __rseq_size;

static struct rseq *area(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

int stop __attribute__((visibility("hidden")));

/**
 * A critical section that spins inside until `stop` is set or the kernel sends it to the abort address. A dump must
 * do what preemption does: abort it, not resume it in the middle. Returns 1 when aborted.
 */
static int critical(struct rseq *rseq) {
  int aborted;
  asm volatile(R"(
    .pushsection __rseq_cs, "aw"
    .balign 32
    3: .long 0, 0
       .quad 1f, (2f - 1f), 4f
    .popsection
    lea 3b(%%rip), %%rax
    mov %%rax, %[cs]
  1:
    cmpl $0, stop(%%rip)
    je 1b
  2:
    xor %[aborted], %[aborted]
    jmp 5f
    .byte 0x0f, 0xb9, 0x3d
    .long 0x53053053
  4:
    mov $1, %[aborted]
  5:
    movq $0, %[cs]
  )"
               : [aborted] "=&r"(aborted), [cs] "+m"(rseq->rseq_cs)
               :
               : "rax", "memory", "cc");
  return aborted;
}

static void *run(void *argument) {
  int i = (int)(long)argument;
  struct rseq *rseq = area();
  threads[i].before = *(volatile uint32_t *)&rseq->cpu_id;
  atomic_store(&threads[i].tid, check_tid());
  if (i == 0) {
    /* a spinning critical section: it is aborted again and again, and must never get stuck */
    while (!critical(rseq)) threads[i].rounds++;
    threads[i].aborts++;
    while (!atomic_load(&check_go_seen)) threads[i].aborts += critical(rseq), threads[i].rounds++;
  } else {
    check_wait_go();
  }
  /* the kernel keeps cpu_id up to date: pinned to a CPU it says that CPU */
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof(all), &all);
  threads[i].valid = 1;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &all)) {
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      sched_setaffinity(0, sizeof(one), &one);
      sched_yield();
      threads[i].after = *(volatile uint32_t *)&rseq->cpu_id;
      if (threads[i].after != (unsigned)cpu) threads[i].valid = 0;
    }
  /* registering it once more with the same arguments: EBUSY when it is still registered */
  long again = syscall(SYS_rseq, rseq, __rseq_size < 32 ? 32 : __rseq_size, 0, 0x53053053);
  threads[i].again = again == -1 ? errno : 0;
  return NULL;
}

/* Moves the spinning thread from one CPU to another until it was aborted: on an idle machine nothing else does. */
static void abort_once(void) {
  pid_t tid = atomic_load(&threads[0].tid);
  cpu_set_t all, one;
  MUST(sched_getaffinity(tid, sizeof(all), &all));
  while (__atomic_load_n(&threads[0].aborts, __ATOMIC_SEQ_CST) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET(cpu, &all)) {
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        MUST(sched_setaffinity(tid, sizeof(one), &one));
        check_sleep_ms(1);
      }
  MUST(sched_setaffinity(tid, sizeof(all), &all));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (__rseq_size == 0) check_die("the C library has not registered rseq");
  for (long i = 0; i < THREADS; i++) MUST0(pthread_create(&threads[i].id, NULL, run, (void *)i));
  for (int i = 0; i < THREADS; i++)
    while (!atomic_load(&threads[i].tid)) check_sleep_ms(1);
  abort_once();
  check_sleep_ms(20);

  check_ready();

  stop = 1;
  for (int i = 0; i < THREADS; i++) {
    MUST0(pthread_join(threads[i].id, NULL));
    CHECK("thread %d had a CPU number", threads[i].before < 0x10000, i);
    CHECK("CPU number of thread %d is kept up to date (last %d)", threads[i].valid, i, (int)threads[i].after);
    CHECK_EQ("registering rseq again in thread %d", EBUSY, threads[i].again, i);
  }
  CHECK("the spinning critical section was aborted", threads[0].aborts > 0);
  return check_finish();
}
