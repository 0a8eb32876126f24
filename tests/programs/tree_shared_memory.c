/*
 * Anonymous shared memory of several processes: areas that all inherited, one that only two descendants have, parts
 * mapped at other places with other protection, one that was cut, one its maker has given up; and a mutex in it that
 * several processes wait for. Nothing may be shared that was not.
 */
#include "tree.h"

#define PAGE 4096
#define SIZE (32 * PAGE)
#define CHILDREN 3
/** The last page, where they write to each other; it is not compared, but for the bytes that they wait for. */
#define BYTES (31 * PAGE)

struct shared {
  pthread_mutex_t lock;
  pthread_cond_t told;
  int round, answers;
  char rest[];
};

static char *area, *given_up, *cut, *moved;
static struct shared *shared;

static char *make(uint64_t seed) {
  char *p = (char *)MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (seed) check_fill(p, SIZE, seed);
  return p;
}
static void check_part(const char *name, const char *memory, size_t from, size_t length, uint64_t seed) {
  char *whole = malloc(SIZE);
  check_fill(whole, SIZE, seed);
  CHECK_BYTES(name, whole + from, memory, length);
  free(whole);
}
/** Waits until the byte has the value, so that a process which does not share it is found and not waited for. */
static void expect_byte(const char *what, volatile char *byte, char value) {
  for (int i = 0; i < 5000 && *byte != value; i++) check_sleep_ms(1);
  CHECK_EQ(what, value, *byte);
}

static void *wait_for_round(void *unused) {
  (void)unused;
  pthread_mutex_lock(&shared->lock);
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += CHECK_SECONDS_TO_LIVE;
  while (!shared->round)
    if (pthread_cond_timedwait(&shared->told, &shared->lock, &until)) break;
  if (shared->round) shared->answers++;
  pthread_mutex_unlock(&shared->lock);
  return NULL;
}

static void child(int number) {
  char *own = make(100 + (uint64_t)number), *private = NULL;
  MUST(private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  check_fill(private, SIZE, 200 + (uint64_t)number);
  if (number == 1) {
    /* the same object at another place, from an offset, read only */
    char *other = (char *)MUST(mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    moved = (char *)MUST(mremap(area + 8 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other));
    MUST(mprotect(moved, 4 * PAGE, PROT_READ));
  }
  if (number == 2) MUST(munmap(cut + 4 * PAGE, 20 * PAGE));
  pthread_t id;
  MUST0(pthread_create(&id, NULL, wait_for_round, NULL));
  pid_t below = tree_fork("below-%d", number);
  if (below == 0) {
    /* only these two have it */
    tree_settled();
    expect_byte("byte written by the parent", own + BYTES + 5, (char)(60 + number));
    own[BYTES + 6] = (char)(70 + number);
    memset(private, 1, SIZE);
    tree_report(0);
  }
  char name[64];
  snprintf(name, sizeof(name), "below-%d", number);
  tree_await(name);
  tree_settled();
  if (number != 1) check_part("part of the area", area + 8 * PAGE, 8 * PAGE, 3 * PAGE, 1);
  else check_part("part of the area at another place", moved, 8 * PAGE, 3 * PAGE, 1);
  check_part("the rest of the area", area + 16 * PAGE, 16 * PAGE, 15 * PAGE, 1);
  if (number == 2) {
    check_part("first part of the cut area", cut, 0, 4 * PAGE, 3);
    check_part("last part of the cut area", cut + 24 * PAGE, 24 * PAGE, 7 * PAGE, 3);
  } else {
    check_part("area that another has cut", cut, 0, 31 * PAGE, 3);
  }
  check_part("area that its maker has given up", given_up, 0, 31 * PAGE, 2);
  check_part("area of the child and its child", own, 0, 31 * PAGE, 100 + (uint64_t)number);
  own[BYTES + 5] = (char)(60 + number);
  expect_byte("byte written by the child's child", own + BYTES + 6, (char)(70 + number));
  /* all three write to and read from the area that the root has no more */
  given_up[BYTES + number] = (char)(10 + number);
  for (int i = 0; i < CHILDREN; i++) expect_byte("byte written by a sibling", given_up + BYTES + i, (char)(10 + i));
  area[BYTES + number] = (char)(20 + number);
  expect_byte("byte written by the root", area + BYTES + 9, 42);
  if (number == 1) expect_byte("byte seen at another place", moved + 3 * PAGE, 43);
  else expect_byte("byte in the part that another has moved", area + 11 * PAGE, 43);
  if (number == 2) expect_byte("byte behind the cut", cut + BYTES, 44);
  tree_wait(below, 0);
  check_filled("private memory that the child's child wrote to", private, SIZE, 200 + (uint64_t)number);
  MUST0(pthread_join(id, NULL));
  tree_report(0);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  area = make(1), given_up = make(2), cut = make(3);
  shared = (struct shared *)make(0);
  pthread_mutexattr_t mutex;
  pthread_condattr_t condition;
  pthread_mutexattr_init(&mutex), pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
  pthread_condattr_init(&condition), pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
  MUST0(pthread_mutex_init(&shared->lock, &mutex));
  MUST0(pthread_cond_init(&shared->told, &condition));
  /* a whole area without content */
  char *empty = make(0);
  pid_t pids[CHILDREN];
  char name[64];
  for (int i = 0; i < CHILDREN; i++) {
    pids[i] = tree_fork("child-%d", i);
    if (pids[i] == 0) child(i);
  }
  for (int i = 0; i < CHILDREN; i++) {
    snprintf(name, sizeof(name), "child-%d", i);
    tree_await(name);
  }
  MUST(munmap(given_up, SIZE));
  check_ready();
  check_zero("area without content", empty, SIZE);
  area[BYTES + 9] = 42, area[11 * PAGE] = 43, cut[BYTES] = 44;
  for (int i = 0; i < CHILDREN; i++) expect_byte("byte written by a child", area + BYTES + i, (char)(20 + i));
  pthread_mutex_lock(&shared->lock);
  shared->round = 1;
  pthread_cond_broadcast(&shared->told);
  pthread_mutex_unlock(&shared->lock);
  for (int i = 0; i < CHILDREN; i++) {
    snprintf(name, sizeof(name), "child-%d", i);
    tree_collect(name);
    snprintf(name, sizeof(name), "below-%d", i);
    tree_collect(name);
    tree_wait(pids[i], 0);
  }
  CHECK_EQ("processes that were woken", CHILDREN, shared->answers);
  return check_finish();
}
