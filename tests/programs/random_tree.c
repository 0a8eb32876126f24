/*
 * A random tree: random_tree WORK_DIRECTORY SEED PROCESSES. The same seed gives the same tree: forks, children of
 * dead parents, sessions, groups, threads, zombies, stopped processes, shared and private memory, names, masks,
 * working directories. Every process remembers its own view of it, and compares once `go` exists.
 *
 * All is built in steps that the root tells one process after the other, through a table in a file that all map: so
 * the tree does not depend on who runs first.
 */
#include "tree.h"
#include <sys/resource.h>
#include <sys/stat.h>

#define MAX 512
#define PAGE 4096
#define AREA (4 * PAGE)
#define THREADS 4

enum command { NONE, FORK, FORK_AND_DIE, SESSION, GROUP, THREAD, SHARED, PRIVATE, NAME, MASK, DIRECTORY, NICE, STOP, DIE_BY_EXIT,
               DIE_BY_SIGNAL, SETTLE };

/** One process, by the number of its making. */
struct member {
  atomic_int command, done;
  int argument, made;
  pid_t pid;
  bool dead, stopped, orphan;
  int parent;
};
struct table {
  int count;
  /** Of each shared area, how many of the living have it. */
  atomic_int area_count, holders[4096];
  struct member members[MAX];
};
static struct table *table;
static struct member *self;
static int own_number;

static uint64_t state;
static uint64_t next(uint64_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (state >> 11) % below;
}

/* What a process has of its own; fork copies it, as it copies the areas. */
static struct area {
  char *at;
  uint64_t seed;
  int number;
} areas[64], privates[64];
static int area_count, private_count;
static struct thread {
  pthread_t id;
  pid_t tid, now;
  uint64_t local, seed;
  atomic_int built;
} threads[THREADS];
static int thread_count;

static void *run(void *argument) {
  struct thread *thread = argument;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  volatile uint64_t local = thread->seed;
  thread->tid = check_tid();
  char name[16];
  snprintf(name, sizeof(name), "thread %lu", thread->seed % 1000);
  prctl(PR_SET_NAME, name);
  atomic_store(&thread->built, 1);
  check_wait_go();
  thread->now = check_tid();
  thread->local = local;
  return NULL;
}

static void member(void) __attribute__((noreturn));

/** In the new process. Threads are not copied. */
static void begin(int number) {
  own_number = number, self = &table->members[number];
  thread_count = 0;
  char name[64];
  snprintf(name, sizeof(name), "member-%d", number);
  tree_become(name);
  self->pid = getpid();
}

static void act(enum command command) {
  uint64_t seed = (uint64_t)self->argument;
  char name[64];
  int number = self->made;
  switch (command) {
    case FORK:
      if (MUST(fork()) == 0) {
        begin(number);
        member();
      }
      break;
    case FORK_AND_DIE: {
      /* the new one is a child of one that has ended: the root takes it */
      pid_t middle = (pid_t)MUST(fork());
      if (middle == 0) {
        if (MUST(fork()) == 0) {
          begin(number);
          while (getppid() != table->members[0].pid) check_sleep_ms(1);
          member();
        }
        _exit(0);
      }
      MUST(waitpid(middle, NULL, 0));
      break;
    }
    case SESSION: setsid(); break;
    case GROUP: setpgid(0, 0); break;
    case THREAD:
      if (thread_count == THREADS) break;
      threads[thread_count].seed = seed, atomic_store(&threads[thread_count].built, 0);
      MUST0(pthread_create(&threads[thread_count].id, NULL, run, &threads[thread_count]));
      while (!atomic_load(&threads[thread_count].built)) check_sleep_ms(1);
      thread_count++;
      break;
    case SHARED:
    case PRIVATE: {
      struct area *list = command == SHARED ? areas : privates;
      int *count = command == SHARED ? &area_count : &private_count;
      if (*count == 64) break;
      list[*count].at = (char *)MUST(mmap(NULL, AREA, PROT_READ | PROT_WRITE,
                                          MAP_ANONYMOUS | (command == SHARED ? MAP_SHARED : MAP_PRIVATE), -1, 0));
      list[*count].seed = seed;
      if (command == SHARED) list[*count].number = atomic_fetch_add(&table->area_count, 1) % 4096;
      check_fill(list[*count].at, AREA, seed);
      if (command == SHARED) *(int *)(list[*count].at + AREA - 4) = 0;
      (*count)++;
      break;
    }
    case NAME:
      snprintf(name, sizeof(name), "%lu) (%lu", seed % 100, seed % 77);
      prctl(PR_SET_NAME, name);
      break;
    case MASK: {
      sigset_t set;
      sigemptyset(&set), sigaddset(&set, SIGRTMIN + (int)(seed % 20));
      sigprocmask(SIG_BLOCK, &set, NULL);
      kill(getpid(), SIGRTMIN + (int)(seed % 20));
      break;
    }
    case DIRECTORY: MUST(chdir(seed % 2 ? "/" : check_dir)); break;
    case NICE: MUST(setpriority(PRIO_PROCESS, 0, (int)(seed % 10))); break;
    default: break;
  }
}

/** Called by each of the living as the last of its building. */
static void hold(void) {
  for (int i = 0; i < area_count; i++) atomic_fetch_add(&table->holders[areas[i].number], 1);
  for (int i = 0; i < private_count; i++) *(int *)(privates[i].at + 64) = own_number;
}

static void compare(struct tree_place before) {
  char name[64];
  tree_check_place(before);
  for (int i = 0; i < area_count; i++) {
    snprintf(name, sizeof(name), "shared area %d", i);
    /* the last page is written below, by everybody */
    char *whole = malloc(AREA);
    check_fill(whole, AREA, areas[i].seed);
    CHECK_BYTES(name, whole, areas[i].at, AREA - PAGE);
    free(whole);
    atomic_fetch_add((atomic_int *)(areas[i].at + AREA - 4), 1);
  }
  /* all that have an area count in it, and see the others do so */
  double end = check_seconds() + 10;
  for (int i = 0; i < area_count; i++) {
    atomic_int *counted = (atomic_int *)(areas[i].at + AREA - 4);
    while (atomic_load(counted) != table->holders[areas[i].number] && check_seconds() < end) check_sleep_ms(1);
    CHECK_EQ("processes that share area %d", table->holders[areas[i].number], atomic_load(counted), i);
  }
  for (int i = 0; i < private_count; i++) {
    /* inherited from a parent that may have written other words since; each has its own */
    char *whole = malloc(AREA);
    check_fill(whole, AREA, privates[i].seed);
    *(int *)(whole + 64) = own_number;
    snprintf(name, sizeof(name), "private area %d", i);
    CHECK_BYTES(name, whole, privates[i].at, AREA);
    free(whole);
  }
  atomic_store(&check_go_seen, 1);
  for (int i = 0; i < thread_count; i++) {
    MUST0(pthread_join(threads[i].id, NULL));
    CHECK_EQ("id of thread %d", threads[i].tid, threads[i].now, i);
    CHECK_EQ("stack of thread %d", threads[i].seed, threads[i].local, i);
  }
}

/** Does what it is told, then what all do at the end. */
static void member(void) {
  atomic_store(&self->done, 1);
  for (;;) {
    int command;
    double end = check_seconds() + CHECK_SECONDS_TO_LIVE;
    while ((command = atomic_load(&self->command)) == NONE) {
      check_sleep_ms(1);
      if (check_seconds() > end) _exit(5);
    }
    if (command == DIE_BY_EXIT) _exit(self->argument & 0xff);
    if (command == DIE_BY_SIGNAL) {
      const int signals[] = {SIGKILL, SIGTERM, SIGUSR1, SIGALRM};
      kill(getpid(), signals[self->argument & 3]);
      for (;;) pause();
    }
    if (command == SETTLE || command == STOP) {
      hold();
      struct tree_place place = tree_place();
      /* the last that the root sees of it */
      if (command == STOP) {
        kill(getpid(), SIGSTOP);
        CHECK("go exists before it goes on", tree_exists("go", ""));
      } else {
        atomic_store(&self->command, NONE);
        atomic_store(&self->done, 1);
      }
      tree_wait_go();
      compare(place);
      tree_leave_report();
      /* parents stay until their children are done: the root ends them, the last first */
      for (end = check_seconds() + CHECK_SECONDS_TO_LIVE; check_seconds() < end;) check_sleep_ms(20);
      _exit(5);
    }
    act((enum command)command);
    atomic_store(&self->command, NONE);
    atomic_store(&self->done, 1);
  }
}

static void await_done(struct member *m) {
  double end = check_seconds() + TREE_PATIENCE;
  while (!atomic_load(&m->done)) {
    if (tree_exists("result", "")) _exit(3);
    if (check_seconds() > end) check_die("member %ld does not do its part", m - table->members);
    check_sleep_ms(1);
  }
}
/** Has a member do something, and waits until it is done. */
static void tell(struct member *m, enum command command) {
  m->argument = (int)next(1 << 30);
  atomic_store(&m->done, 0);
  if (m == self) {
    act(command);
    atomic_store(&m->done, 1);
  } else {
    atomic_store(&m->command, command);
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc < 4 || atoi(argv[3]) > MAX) return dprintf(2, "usage: random_tree WORK_DIRECTORY SEED PROCESSES\n"), 2;
  state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
  int processes = atoi(argv[3]);
  char path[4300];
  snprintf(path, sizeof(path), "%s/table", check_dir);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0644));
  MUST(ftruncate(fd, sizeof(struct table)));
  table = (struct table *)MUST(mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  close(fd);
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
  begin(0);
  table->count = 1;
  for (int i = 0; i < 20; i++) next(2);
  /* what is done to whom; a quarter of it makes a new process */
  while (table->count < processes) {
    struct member *m = &table->members[next((uint64_t)table->count)];
    const enum command commands[] = {FORK, FORK, FORK, FORK_AND_DIE, SESSION, GROUP, THREAD, THREAD, SHARED, PRIVATE, NAME, MASK, DIRECTORY, NICE};
    enum command command = commands[next(sizeof(commands) / sizeof(commands[0]))];
    if (m == self && (command == FORK_AND_DIE || command == GROUP || command == SESSION)) continue;
    if (command == FORK || command == FORK_AND_DIE) {
      m->made = table->count++;
      struct member *made = &table->members[m->made];
      made->parent = command == FORK ? (int)(m - table->members) : 0;
      tell(m, command);
      await_done(made);
    } else {
      tell(m, command);
    }
    await_done(m);
  }
  /* leaves may end as zombies, or stop; the rest settles. From the last on, so that children come before parents */
  for (int i = table->count - 1; i > 0; i--) {
    struct member *m = &table->members[i];
    bool leaf = true;
    for (int j = i + 1; j < table->count; j++) leaf = leaf && table->members[j].parent != i;
    int how = (int)next(8);
    if (leaf && how < 2) {
      m->dead = true;
      tell(m, how ? DIE_BY_EXIT : DIE_BY_SIGNAL);
      tree_await_state(m->pid, 'Z');
    } else if (how == 2) {
      m->stopped = true;
      tell(m, STOP);
      tree_await_state(m->pid, 'T');
    } else {
      tell(m, SETTLE);
      await_done(m);
    }
  }
  hold();
  struct tree_place place = tree_place();
  check_ready();
  for (int i = 1; i < table->count; i++) {
    struct member *m = &table->members[i];
    CHECK_EQ("state of member %d: stopped", m->stopped, tree_state(m->pid) == 'T', i);
    CHECK_EQ("state of member %d: dead", m->dead, tree_state(m->pid) == 'Z', i);
    if (m->stopped) kill(m->pid, SIGCONT);
  }
  compare(place);
  char name[64];
  for (int i = 1; i < table->count; i++) {
    snprintf(name, sizeof(name), "member-%d", i);
    if (!table->members[i].dead) tree_collect(name);
  }
  for (int i = table->count - 1; i > 0; i--) {
    struct member *m = &table->members[i];
    if (!m->dead) kill(m->pid, SIGKILL);
  }
  while (waitpid(-1, NULL, 0) > 0) continue;
  return check_finish();
}
