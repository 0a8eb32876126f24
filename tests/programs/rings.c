/*
 * Instances of io_uring: unused, with requests that are not submitted and results that nobody has taken, with counters
 * that differ, with registered files, buffers and an eventfd, of other shapes, in a child that has it by fork; a thread
 * that waits for results. All go on where they were.
 */
#include "ring.h"
#include "tree.h"
#include <sys/eventfd.h>

static int file;
static struct uring waited;
static atomic_int got, failed;
static void *wait_for_results(void *unused) {
  (void)unused;
  int result;
  while (enter(&waited, 0, 1) == 0)
    while (take(&waited, &result) >= 0) got++;
  failed = errno;
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  char path[4200], text[64] = "";
  snprintf(path, sizeof(path), "%s/file", check_dir);
  file = (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
  MUST(pwrite(file, "registered", 10, 0));
  int notify = (int)MUST(eventfd(0, EFD_NONBLOCK));

  struct uring unused = make(0, 8), some = make(0, 16), round = make(0, 4), silent = make(0, 4), more = make(0, 4),
               wide = make(IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_COOP_TASKRUN, 32);
  waited = make(0, 4);
  use("some", &some, 100);
  submit(&some, 1, 9), expect("some", &some, 1, 3);
  nop(&some, 20), nop(&some, 21);
  use("round", &round, 5000);
  /* more requests than results, and the other way round */
  for (unsigned i = 0; i < 11; i++) {
    put(&silent, (struct io_uring_sqe){.opcode = IORING_OP_NOP, .flags = IOSQE_CQE_SKIP_SUCCESS});
    CHECK_EQ("submitted", 1L, enter(&silent, 1, 0));
  }
  for (unsigned i = 0; i < 7; i++) {
    put(&unused, (struct io_uring_sqe){.opcode = IORING_OP_MSG_RING, .fd = more.fd, .off = i, .user_data = i});
    CHECK_EQ("submitted", 1L, enter(&unused, 1, 0));
    expect("unused", &unused, i, 1), expect("more", &more, i, 1);
  }
  use("wide", &wide, 9);
  submit(&wide, 5, 3);
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_results, NULL);
  int again = (int)MUST(dup(some.fd));

  pid_t child = tree_fork("child");
  if (child == 0) {
    tree_settled();
    /* it goes on with a ring of its parent */
    use("round", &round, 3);
    tree_report(0);
  }
  tree_await("child");
  struct uring files = make(0, 8);
  int registered[] = {-1, file, -1, notify};
  struct iovec buffers[] = {{NULL, 0}, {text, sizeof(text)}};
  MUST(syscall(SYS_io_uring_register, files.fd, IORING_REGISTER_FILES, registered, 4));
  MUST(syscall(SYS_io_uring_register, files.fd, IORING_REGISTER_BUFFERS, buffers, 2));
  MUST(syscall(SYS_io_uring_register, files.fd, IORING_REGISTER_EVENTFD, &notify, 1));
  check_ready();
  tree_collect("child");
  tree_wait(child, 0);

  int result;
  use("unused", &unused, 3);
  expect("some", &some, 4, 6), none("some", &some);
  some.fd = again;
  CHECK_EQ("submitted", 2L, enter(&some, 2, 0));
  expect("some, submitted later", &some, 20, 2);
  use("some", &some, 20), use("round", &round, 10), use("silent", &silent, 10), use("more", &more, 10);
  expect("wide", &wide, 5, 3), use("wide", &wide, 20);
  put(&files, (struct io_uring_sqe){.opcode = IORING_OP_READ_FIXED, .fd = 1, .flags = IOSQE_FIXED_FILE, .addr = (uint64_t)text,
                                    .len = 10, .buf_index = 1, .user_data = 77});
  CHECK_EQ("submitted", 1L, enter(&files, 1, 1));
  CHECK_EQ("a read", (int64_t)77, take(&files, &result));
  CHECK_EQ("bytes read", 10, result);
  CHECK_EQ("what was read", 0, memcmp(text, "registered", 10));
  eventfd_t told = 0;
  CHECK_EQ("told by the eventfd", 0, eventfd_read(notify, &told));
  CHECK_EQ("results told", (eventfd_t)1, told);
  for (int i = 0; i < 5; i++) submit(&waited, (uint64_t)i, 1), usleep(1000);
  for (int i = 0; i < 500 && got < 5; i++) usleep(10000);
  CHECK_EQ("results of the thread", 5, (int)got);
  CHECK_EQ("error of the thread", 0, (int)failed);
  return check_finish();
}
