/*
 * Contexts of asynchronous I/O (io_setup(2)): empty, with events that nobody has taken yet, with a ring that has gone
 * round, and a large one; in a child, too. All go on where they were.
 */
#include "tree.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>

/** The begin of the memory behind a context: struct aio_ring of fs/aio.c. */
struct ring {
  unsigned id, slots, head, tail, magic;
};
static aio_context_t make(unsigned requests) {
  aio_context_t context = 0;
  MUST(syscall(SYS_io_setup, requests, &context));
  return context;
}
static int file;
static char bytes[64];
/** Requests whose events have the numbers from `first` on as their data. */
static void submit(aio_context_t context, uint64_t first, int count, int notify) {
  for (int i = 0; i < count; i++) {
    struct iocb request = {.aio_data = first + (uint64_t)i, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file,
                           .aio_buf = (uint64_t)bytes, .aio_nbytes = 1 + (first + (uint64_t)i) % 60, .aio_offset = 0};
    if (notify >= 0) request.aio_flags = IOCB_FLAG_RESFD, request.aio_resfd = (uint32_t)notify;
    CHECK_EQ("io_submit", 1, syscall(SYS_io_submit, context, 1, &(struct iocb *){&request}));
  }
}
static void take(const char *name, aio_context_t context, uint64_t first, int count) {
  for (int i = 0; i < count; i++) {
    struct io_event event = {0};
    CHECK_EQ("event %d of %s", 1, syscall(SYS_io_getevents, context, 1, 1, &event, &(struct timespec){5, 0}), i, name);
    CHECK_EQ("data of event %d of %s", first + (uint64_t)i, event.data, i, name);
    CHECK_EQ("result of event %d of %s", 1 + (first + (uint64_t)i) % 60, event.res, i, name);
  }
}
static void none(const char *name, aio_context_t context) {
  struct io_event event;
  CHECK_EQ("a further event of %s", 0, syscall(SYS_io_getevents, context, 0, 1, &event, &(struct timespec){0, 0}), name);
}
/** As many as the ring holds, and round it. */
static void use(const char *name, aio_context_t context, unsigned rounds) {
  unsigned slots = ((struct ring *)context)->slots;
  for (unsigned i = 0; i < rounds * slots; i += 20) submit(context, 1000 + i, 20, -1), take(name, context, 1000 + i, 20);
  none(name, context);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200];
  snprintf(path, sizeof(path), "%s/file", check_dir);
  file = (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
  MUST(ftruncate(file, 4096));
  int notify = (int)MUST(eventfd(0, EFD_NONBLOCK));
  aio_context_t empty = make(10), some = make(10), round = make(30), large = make(3000), gone = make(5);
  submit(some, 1, 7, notify), take("some", some, 1, 3);
  use("round", round, 2);
  struct ring *ring = (struct ring *)round;
  /* unread events from the last slots to the first */
  while (ring->tail + 5 < ring->slots) submit(round, 1, 1, -1), take("round", round, 1, 1);
  submit(round, 100, 12, -1);
  if (ring->tail > ring->head) check_die("the ring did not go round");
  submit(large, 5000, 2500, -1), take("large", large, 5000, 100);
  MUST(syscall(SYS_io_destroy, gone));
  unsigned slots[] = {((struct ring *)empty)->slots, ((struct ring *)some)->slots, ring->slots, ((struct ring *)large)->slots};
  aio_context_t all[] = {empty, some, round, large};
  pid_t child = 0;
  if (argc < 3) {
    /* made before by the parent alone: a child has only its own */
    for (int i = 0; i < 4; i++) MUST(madvise((void *)all[i], 4096 * ((slots[i] * 32 + 32 + 4095) / 4096), MADV_DONTFORK));
    child = tree_fork("child");
    if (child == 0) {
      aio_context_t own = make(20);
      submit(own, 50, 9, -1), take("the child's", own, 50, 2);
      tree_settled();
      take("the child's", own, 52, 7), none("the child's", own), use("the child's", own, 2);
      tree_report(0);
    }
    tree_await("child");
  }

  check_ready();

  if (child) tree_collect("child"), tree_wait(child, 0);
  for (int i = 0; i < 4; i++) CHECK_EQ("slots of ring %d", slots[i], ((struct ring *)all[i])->slots, i);
  uint64_t told = 0;
  CHECK_EQ("read of the eventfd", 8, read(notify, &told, 8));
  CHECK_EQ("what it was told", 7, told);
  none("the empty one", empty), use("the empty one", empty, 3);
  take("some", some, 4, 4), none("some", some), use("some", some, 2);
  take("round", round, 100, 12), none("round", round), use("round", round, 2);
  take("large", large, 5100, 2400), none("large", large), use("large", large, 2);
  submit(some, 1, 1, notify), take("some", some, 1, 1);
  CHECK_EQ("read of the eventfd", 8, read(notify, &told, 8));
  for (int i = 0; i < 4; i++) CHECK_EQ("io_destroy of %d", 0, syscall(SYS_io_destroy, all[i]), i);
  return check_finish();
}
