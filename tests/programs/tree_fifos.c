/* Named pipes: with content, half-closed, without a reader or writer, of two processes, one process that waits in open. */
#include "tree.h"
#include <poll.h>
#include <sys/stat.h>

static char paths[8][4300];
static const char *fifo(int n) {
  snprintf(paths[n], sizeof(paths[n]), "%s/fifo-%d", check_dir, n);
  if (mkfifo(paths[n], 0640) && errno != EEXIST) check_die("mkfifo: %s", strerror(errno));
  return paths[n];
}
static void put(int fd, const char *text) {
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("write to a fifo: %s", strerror(errno));
}
static void expect(const char *name, int fd, const char *text) {
  char got[256] = {0};
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  ssize_t n = poll(&ready, 1, 10000) == 1 ? read(fd, got, strlen(text)) : -1;
  CHECK_EQ("%s: bytes", (ssize_t)strlen(text), n, name);
  CHECK_STRING(name, text, got);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int both = (int)MUST(open(fifo(0), O_RDWR));
  put(both, "in both");
  int lone = (int)MUST(open(fifo(1), O_RDONLY | O_NONBLOCK));
  int filler = (int)MUST(open(fifo(2), O_RDWR)), left = (int)MUST(open(fifo(2), O_RDONLY));
  put(filler, "without writer");
  close(filler);
  int reader = (int)MUST(open(fifo(3), O_RDONLY | O_NONBLOCK)), empty = (int)MUST(open(fifo(4), O_RDWR | O_NONBLOCK));
  MUST(fcntl(empty, F_SETPIPE_SZ, 8192));
  fifo(5);
  pid_t child = tree_fork("child");
  if (child == 0) {
    close(both), close(lone), close(left), close(reader), close(empty);
    int writer = (int)MUST(open(fifo(3), O_WRONLY));
    put(writer, "from the child");
    tree_settled();
    put(writer, ", more");
    close(writer);
    tree_report(0);
  }
  tree_await("child");
  pid_t opener = tree_fork("opener");
  if (opener == 0) {
    close(both), close(lone), close(left), close(reader), close(empty);
    tree_tell();
    int fd = open(fifo(5), O_RDONLY);
    CHECK("the open that waited", fd >= 0);
    expect("what came", fd, "opened");
    tree_report(0);
  }
  tree_await("opener");
  tree_await_state(opener, 'S');
  check_sleep_ms(10);
  check_ready();
  struct stat named, open_one;
  CHECK_EQ("stat", 0, stat(paths[0], &named));
  CHECK_EQ("fstat", 0, fstat(both, &open_one));
  CHECK_EQ("inode behind the name", named.st_ino, open_one.st_ino);
  CHECK_EQ("permissions", 0640, named.st_mode & 07777);
  expect("a fifo open for both", both, "in both");
  struct pollfd p = {.fd = lone, .events = POLLIN};
  CHECK_EQ("events of one without writer ever", 0, poll(&p, 1, 0));
  expect("content that the writer has left", left, "without writer");
  char byte;
  CHECK_EQ("its end", 0, read(left, &byte, 1));
  CHECK_EQ("size", 8192, fcntl(empty, F_GETPIPE_SZ));
  CHECK_EQ("flags", O_RDWR | O_NONBLOCK, fcntl(empty, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
  expect("from the child", reader, "from the child");
  expect("from the child, later", reader, ", more");
  int late = open(fifo(1), O_WRONLY | O_NONBLOCK);
  CHECK("opened by its name for the reader that is there", late >= 0);
  put(late, "late");
  expect("by its name", lone, "late");
  int opened = -1;
  for (int i = 0; i < 5000 && (opened = open(fifo(5), O_WRONLY | O_NONBLOCK)) < 0; i++) check_sleep_ms(1);
  CHECK("there is one that waits in open", opened >= 0);
  if (opened >= 0) put(opened, "opened");
  tree_collect("child"), tree_collect("opener");
  tree_wait(child, 0), tree_wait(opener, 0);
  return check_finish();
}
