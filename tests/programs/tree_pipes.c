/*
 * Pipes between the processes of a tree: from a child and to it, between siblings, with content that nobody has read,
 * ends that all inherited, an end that only a dead process had; blocked readers and writers in other processes; and
 * one whose writer is a zombie.
 */
#include "tree.h"
#include <poll.h>

static int up[2], down[2], siblings[2], inherited[2], orphaned[2], chain[2];

static void put(int fd, const char *text) {
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("write to a pipe: %s", strerror(errno));
}
/** Reads as many bytes as the text has; waits for them, but not for ever. */
static void expect(const char *name, int fd, const char *text) {
  char got[256] = {0};
  size_t done = 0, length = strlen(text);
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  while (done < length && poll(&ready, 1, 10000) == 1) {
    ssize_t n = read(fd, got + done, length - done);
    if (n <= 0) break;
    done += (size_t)n;
  }
  CHECK_STRING(name, text, got);
}
static void expect_end(const char *name, int fd) {
  char byte;
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  CHECK_EQ("%s: poll", 1, poll(&ready, 1, 10000), name);
  if (ready.revents) CHECK_EQ("%s: read", 0, read(fd, &byte, 1), name);
}
static bool same(pid_t a, pid_t b, int fd) { return syscall(SYS_kcmp, a, b, 0 /* KCMP_FILE */, fd, fd) == 0; }

int main(int argc, char **argv) {
  check_start(argc, argv);
  int *all[] = {up, down, siblings, inherited, orphaned, chain};
  for (int i = 0; i < 6; i++) MUST(pipe(all[i]));
  put(inherited[1], "left by the root;");
  pid_t root = getpid();
  pid_t gone = (pid_t)MUST(fork());
  if (gone == 0) {
    put(orphaned[1], "last words");
    put(chain[1], "written by a dead one;");
    _exit(0);
  }
  MUST(waitpid(gone, NULL, 0));
  close(orphaned[1]);
  pid_t zombie = (pid_t)MUST(fork());
  if (zombie == 0) {
    put(chain[1], "written by a zombie;");
    _exit(0);
  }
  tree_await_state(zombie, 'Z');
  pid_t writer = tree_fork("writer");
  if (writer == 0) {
    close(up[0]), close(down[1]), close(siblings[0]), close(orphaned[0]), close(chain[0]);
    put(up[1], "from the child;");
    put(siblings[1], "from a sibling;");
    tree_settled();
    CHECK("the inherited end is one open file", same(root, getpid(), inherited[0]) && same(root, getpid(), inherited[1]));
    expect("from the root", down[0], "to the child;");
    put(up[1], "an answer;");
    put(siblings[1], "more;");
    close(siblings[1]), close(up[1]), close(chain[1]);
    tree_report(0);
  }
  tree_await("writer");
  pid_t reader = tree_fork("reader");
  if (reader == 0) {
    close(up[0]), close(up[1]), close(down[0]), close(down[1]), close(siblings[1]), close(orphaned[0]), close(chain[1]);
    pid_t below = tree_fork("below");
    if (below == 0) {
      /* blocked in reading what comes only after go; what is there is not for it */
      char got[64] = {0};
      close(siblings[0]), close(inherited[0]), close(inherited[1]);
      char all[256] = {0};
      size_t n = 0;
      while (n < strlen("written by a dead one;written by a zombie;")) n += (size_t)MUST(read(chain[0], all + n, 10));
      tree_tell();
      ssize_t m = read(chain[0], got, sizeof(got));
      CHECK_EQ("value of the blocked read", 9, m);
      CHECK_STRING("what it has read", "after go;", got);
      CHECK_STRING("what it had read", "written by a dead one;written by a zombie;", all);
      CHECK_EQ("the end", 0, read(chain[0], got, sizeof(got)));
      tree_report(0);
    }
    close(chain[0]);
    tree_await("below");
    tree_await_state(below, 'S');
    tree_settled();
    expect("from the sibling", siblings[0], "from a sibling;more;");
    expect_end("from the sibling", siblings[0]);
    expect("what the root has left", inherited[0], "left by the root;");
    put(inherited[1], "left by the reader;");
    check_write_file("report-read", "ok\n", 3);
    tree_collect("below");
    tree_wait(below, 0);
    tree_report(0);
  }
  tree_await("reader");
  close(up[1]), close(down[0]), close(siblings[0]), close(siblings[1]), close(chain[0]);
  check_ready();
  expect("last words of a dead one", orphaned[0], "last words");
  expect_end("its pipe", orphaned[0]);
  expect("from the child", up[0], "from the child;");
  put(down[1], "to the child;");
  expect("the child's answer", up[0], "an answer;");
  expect_end("from the child", up[0]);
  tree_collect("read");
  expect("what the reader has left", inherited[0], "left by the reader;");
  put(chain[1], "after go;");
  close(chain[1]);
  tree_collect("writer"), tree_collect("reader");
  tree_wait(writer, 0), tree_wait(reader, 0), tree_wait(zombie, 0);
  return check_finish();
}
