/*
 * Instances of io_uring that one thread alone may use, also one that is not enabled yet; that threads of the kernel take
 * requests from, asleep, awake, common to two, and with the credentials of an unprivileged child; that are in memory of
 * the program, its own and shared. With registered files, buffers, an eventfd, and themselves. All go on where they were.
 */
#include "ring.h"
#include "tree.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#define DEFERRED (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

/** In memory of the program, two pages each. */
static struct uring make_in(unsigned flags, uint8_t *memory) {
  struct io_uring_params params = {.flags = flags | IORING_SETUP_NO_MMAP};
  params.cq_off.resv2 = (uint64_t)memory;
  params.sq_off.resv2 = (uint64_t)memory + 8192;
  return make_with(params, 8);
}
/** Puts requests for a thread of the kernel, and waits until it has done them. */
static void poll_some(const char *name, struct uring *ring, uint64_t first, bool wake) {
  unsigned *tail = word(ring, ring->params.cq_off.tail), before = *tail;
  nop(ring, first), nop(ring, first + 1);
  if (wake) ring->flags = IORING_ENTER_SQ_WAKEUP, MUST(enter(ring, 0, 0));
  for (int i = 0; i < 1000 && __atomic_load_n(tail, __ATOMIC_ACQUIRE) != before + 2; i++) usleep(10000);
  expect(name, ring, first, 2);
}

static struct uring theirs, more;
static int notify, file;
static char text[64];
static atomic_int built, failed;
static void *thread_of_ring(void *unused) {
  (void)unused;
  theirs = make(DEFERRED | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32, 8);
  more = make(0, 4);
  use("theirs", &theirs, 100);
  /* results without requests */
  for (unsigned i = 0; i < 7; i++) {
    put(&more, (struct io_uring_sqe){.opcode = IORING_OP_MSG_RING, .fd = theirs.fd, .off = i, .user_data = i});
    MUST(enter(&more, 1, 0)), expect("more", &more, i, 1);
    MUST(enter(&theirs, 0, 1)), expect("theirs", &theirs, i, 1);
  }
  submit(&theirs, 40, 3), nop(&theirs, 43);
  int registered[] = {-1, file};
  struct iovec buffer = {text, sizeof(text)};
  MUST(syscall(SYS_io_uring_register, theirs.fd, IORING_REGISTER_FILES, registered, 2));
  MUST(syscall(SYS_io_uring_register, theirs.fd, IORING_REGISTER_BUFFERS, &buffer, 1));
  MUST(syscall(SYS_io_uring_register, theirs.fd, IORING_REGISTER_EVENTFD, &notify, 1));
  struct io_uring_rsrc_update update = {.offset = 3, .data = (uint64_t)theirs.fd};
  MUST(syscall(SYS_io_uring_register, theirs.fd, IORING_REGISTER_RING_FDS, &update, 1));
  built = 1;
  while (!check_go_seen) usleep(1000);
  /* by its place among the registered rings */
  struct uring registered_ring = theirs;
  registered_ring.fd = 3, registered_ring.flags = IORING_ENTER_REGISTERED_RING;
  expect("theirs", &theirs, 40, 3);
  CHECK_EQ("submitted by a registered ring", 1L, enter(&registered_ring, 1, 0));
  expect("theirs, submitted later", &theirs, 43, 1);
  eventfd_t told;
  while (eventfd_read(notify, &told) == 0) continue;
  put(&theirs, (struct io_uring_sqe){.opcode = IORING_OP_READ_FIXED, .fd = 1, .flags = IOSQE_FIXED_FILE,
                                     .addr = (uint64_t)text, .len = 10, .user_data = 77});
  CHECK_EQ("submitted", 1L, enter(&theirs, 1, 1));
  int result;
  CHECK_EQ("a read", (int64_t)77, take(&theirs, &result));
  CHECK_EQ("bytes read", 10, result);
  CHECK_BYTES("what was read", "registered", text, 10);
  CHECK_EQ("told by the eventfd", 0, eventfd_read(notify, &told));
  use("theirs", &theirs, 20), none("theirs", &theirs);
  failed = enter(&theirs, 0, 0) < 0;
  return NULL;
}

/** A thread of the kernel may open what the one who made the ring may. */
static int open_polled(struct uring *ring, const char *path) {
  int result = 0;
  unsigned *tail = word(ring, ring->params.cq_off.tail), before = *tail;
  put(ring, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uint64_t)path, .user_data = 9});
  ring->flags = IORING_ENTER_SQ_WAKEUP;
  MUST(enter(ring, 0, 0));
  for (int i = 0; i < 1000 && __atomic_load_n(tail, __ATOMIC_ACQUIRE) == before; i++) usleep(10000);
  CHECK_EQ("opened", (int64_t)9, take(ring, &result));
  return result;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200];
  snprintf(path, sizeof(path), "%s/file", check_dir);
  file = (int)MUST(open(path, O_RDWR | O_CREAT, 0600));
  MUST(pwrite(file, "registered", 10, 0));
  MUST(chmod(check_dir, 0777));
  notify = (int)MUST(eventfd(0, EFD_NONBLOCK));

  struct uring single = make(IORING_SETUP_SINGLE_ISSUER, 8), deferred = make(DEFERRED, 16),
               disabled = make(DEFERRED | IORING_SETUP_R_DISABLED, 4);
  struct uring attached = make_with((struct io_uring_params){.flags = IORING_SETUP_ATTACH_WQ, .wq_fd = (unsigned)single.fd}, 4);
  use("single", &single, 50), submit(&single, 7, 4), nop(&single, 11);
  use("deferred", &deferred, 30), submit(&deferred, 7, 4), nop(&deferred, 11);
  use("attached", &attached, 3);
  struct uring mixed = {.fd = -1};
  struct io_uring_params may = {.flags = IORING_SETUP_CQE_MIXED};
  int probe = (int)syscall(SYS_io_uring_setup, 4, &may);
  if (probe >= 0) close(probe), mixed = make(IORING_SETUP_CQE_MIXED, 4), use("mixed", &mixed, 9);

  uint8_t *own = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int memfd = (int)MUST(memfd_create("ring", 0));
  MUST(ftruncate(memfd, 4 * 4096));
  uint8_t *common = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  struct uring owned = make_in(IORING_SETUP_SQE128, own), shared = make_in(DEFERRED | IORING_SETUP_NO_SQARRAY, common);
  use("owned", &owned, 40), submit(&owned, 7, 4), nop(&owned, 11);
  use("shared", &shared, 40), submit(&shared, 7, 4), nop(&shared, 11);
  memset(own + 4 * 4096, 'x', 4096);

  /* one that sleeps, one that never does, one that has the same thread */
  struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF, .sq_thread_idle = 20};
  struct uring asleep = make_with(params, 8);
  params.flags |= IORING_SETUP_ATTACH_WQ, params.wq_fd = (unsigned)asleep.fd;
  struct uring attached_poll = make_with(params, 8);
  struct uring awake = make_with((struct io_uring_params){.flags = IORING_SETUP_SQPOLL | IORING_SETUP_SINGLE_ISSUER,
                                                          .sq_thread_idle = 600000}, 8);
  poll_some("awake", &awake, 0, true);
  for (unsigned i = 0; i < 15; i++) {
    poll_some("asleep", &asleep, i, true), poll_some("awake", &awake, i, false);
    poll_some("attached", &attached_poll, i, true);
  }
  unsigned *flags = word(&asleep, asleep.params.sq_off.flags);
  while (!(__atomic_load_n(flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP)) usleep(1000);
  nop(&asleep, 50);

  pthread_t thread;
  MUST0(pthread_create(&thread, NULL, thread_of_ring, NULL));
  while (!built) usleep(1000);
  int epoll = (int)MUST(epoll_create1(0));
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5};
  MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, deferred.fd, &event));

  pid_t child = tree_fork("child");
  if (child == 0) {
    MUST(setresgid(65534, 65534, 65534)), MUST(setresuid(65534, 65534, 65534));
    struct uring poor = make_with((struct io_uring_params){.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 20}, 4);
    CHECK_EQ("opens what root may", -EACCES, open_polled(&poor, path));
    tree_settled();
    CHECK_EQ("opens what root may", -EACCES, open_polled(&poor, path));
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  tree_collect("child");
  tree_wait(child, 0);

  expect("single", &single, 7, 4), CHECK_EQ("submitted", 1L, enter(&single, 1, 0)), expect("single", &single, 11, 1);
  use("single", &single, 20), none("single", &single);
  CHECK_EQ("events of the epoll", 1, epoll_wait(epoll, &event, 1, 0));
  expect("deferred", &deferred, 7, 4);
  CHECK_EQ("events of the epoll", 0, epoll_wait(epoll, &event, 1, 0));
  CHECK_EQ("submitted", 1L, enter(&deferred, 1, 0)), expect("deferred", &deferred, 11, 1);
  CHECK_EQ("errno of the thread that may not", -1L, syscall(SYS_io_uring_register, theirs.fd, IORING_REGISTER_EVENTFD, &notify, 1));
  CHECK_EQ("errno of the thread that may not", EEXIST, errno);
  CHECK_EQ("use before it is enabled", -1L, enter(&disabled, 0, 0));
  MUST(syscall(SYS_io_uring_register, disabled.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
  use("disabled", &disabled, 9), use("attached", &attached, 9);
  if (mixed.fd >= 0) use("mixed", &mixed, 9);
  expect("owned", &owned, 7, 4), CHECK_EQ("submitted", 1L, enter(&owned, 1, 0)), expect("owned", &owned, 11, 1);
  expect("shared", &shared, 7, 4), CHECK_EQ("submitted", 1L, enter(&shared, 1, 0)), expect("shared", &shared, 11, 1);
  use("owned", &owned, 20), use("shared", &shared, 20);
  CHECK_EQ("beside the ring", 'x', own[4 * 4096 + 17]);

  asleep.flags = IORING_ENTER_SQ_WAKEUP;
  MUST(enter(&asleep, 0, 0));
  for (int i = 0; i < 1000 && *word(&asleep, asleep.params.cq_off.head) == *word(&asleep, asleep.params.cq_off.tail); i++)
    usleep(10000);
  expect("asleep", &asleep, 50, 1);
  for (unsigned i = 0; i < 15; i++) {
    poll_some("asleep", &asleep, i, true), poll_some("awake", &awake, i, false);
    poll_some("attached", &attached_poll, i, true);
  }
  MUST0(pthread_join(thread, NULL));
  CHECK_EQ("the thread may use its ring", 0, (int)failed);
  return check_finish();
}
