/* What prctl and its relatives set for a process or a thread. */
#include "check.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

struct values {
  int dumpable, subreaper, death_signal, thp, slack, nnp, keep_caps, mce, tsc, io_flusher, memory_merge, mdwe;
  long speculation[3];
};

static void read_values(struct values *v) {
  memset(v, 0, sizeof(*v));
  v->dumpable = prctl(PR_GET_DUMPABLE);
  prctl(PR_GET_CHILD_SUBREAPER, &v->subreaper);
  prctl(PR_GET_PDEATHSIG, &v->death_signal);
  v->thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
  v->slack = prctl(PR_GET_TIMERSLACK);
  v->nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  v->keep_caps = prctl(PR_GET_KEEPCAPS);
  v->mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
  prctl(PR_GET_TSC, &v->tsc);
  v->io_flusher = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
  v->memory_merge = prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0);
  v->mdwe = prctl(PR_GET_MDWE, 0, 0, 0, 0);
  for (int i = 0; i < 3; i++) v->speculation[i] = prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
}

static void compare(const char *who, struct values *a, struct values *b) {
#define FIELD(name) CHECK_EQ("%s of %s", a->name, b->name, #name, who)
  FIELD(dumpable);
  FIELD(subreaper);
  FIELD(death_signal);
  FIELD(thp);
  FIELD(slack);
  FIELD(nnp);
  FIELD(keep_caps);
  FIELD(mce);
  FIELD(tsc);
  FIELD(io_flusher);
  FIELD(memory_merge);
  FIELD(mdwe);
  FIELD(speculation[0]);
  FIELD(speculation[1]);
  FIELD(speculation[2]);
}

static struct values thread_before, thread_after;
static atomic_int built;
static void *run(void *unused) {
  (void)unused;
  /* one that does no harm: a restore may end before the program does, and it is its parent */
  MUST(prctl(PR_SET_PDEATHSIG, SIGURG));
  MUST(prctl(PR_SET_TIMERSLACK, 777777));
  MUST(prctl(PR_SET_NAME, "other"));
  read_values(&thread_before);
  atomic_store(&built, 1);
  check_wait_go();
  read_values(&thread_after);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  pthread_t id;
  MUST(prctl(PR_SET_DUMPABLE, 0));
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  MUST(prctl(PR_SET_PDEATHSIG, SIGWINCH));
  MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
  MUST(prctl(PR_SET_TIMERSLACK, 123456));
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  MUST(prctl(PR_SET_KEEPCAPS, 1));
  MUST0(pthread_create(&id, NULL, run, NULL));
  while (!atomic_load(&built)) check_sleep_ms(1);
  umask(0137);
  struct values before, after;
  read_values(&before);

  check_ready();

  read_values(&after);
  compare("the main thread", &before, &after);
  MUST0(pthread_join(id, NULL));
  compare("the other thread", &thread_before, &thread_after);
  CHECK_EQ("umask", 0137, umask(0));
  return check_finish();
}
