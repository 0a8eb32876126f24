/*
 * Files of huge pages on the hugetlbfs that is argv[2], and a memfd of such: with a name and deleted, mapped shared and
 * private, in two processes. What was written to a private page is the process's own, the rest is the file's.
 */
#include "tree.h"
#include <sys/mman.h>
#include <sys/stat.h>

#define HUGE (2u << 20)
#define PAGES 3u
static const char *const KINDS[] = {"named", "deleted", "memfd"};
enum { COUNT = sizeof(KINDS) / sizeof(*KINDS) };

static int open_one(int i, const char *place) {
  char path[4300];
  if (i == 2) return (int)MUST(memfd_create("huge", MFD_HUGETLB | 21u << 26));
  snprintf(path, sizeof(path), "%s/%s", place, KINDS[i]);
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT, 0600));
  if (i == 1) MUST(unlink(path));
  return fd;
}
static char *map(int fd, int flags, unsigned pages) {
  return (char *)MUST(mmap(NULL, pages * HUGE, PROT_READ | PROT_WRITE, flags, fd, 0));
}
/** Whether the page at an address is one of 2 MiB that no other process has, as pagemap shows. */
static bool is_own_page(const char *at) {
  uint64_t entries[HUGE / 4096] = {0};
  int fd = (int)MUST(open("/proc/self/pagemap", O_RDONLY));
  MUST(pread(fd, entries, sizeof(entries), (off_t)((uint64_t)at / 4096 * 8)));
  close(fd);
  for (unsigned i = 1; i < HUGE / 4096; i++)
    if ((entries[i] & ((1ul << 55) - 1)) != (entries[0] & ((1ul << 55) - 1)) + i) return false;
  return entries[0] >> 63 && !(entries[0] >> 61 & 1);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* all that the two processes have, and what they write */
  size_t all = (size_t)COUNT * PAGES * HUGE * 4;
  void *spare = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (spare == MAP_FAILED) {
    check_note("no huge pages: %s", strerror(errno));
    check_ready();
    return check_finish();
  }
  MUST(munmap(spare, all));
  char *shared[COUNT], *private[COUNT];
  int fds[COUNT];
  for (int i = 0; i < COUNT; i++) {
    fds[i] = open_one(i, argv[2]);
    MUST(ftruncate(fds[i], PAGES * HUGE));
    shared[i] = map(fds[i], MAP_SHARED, PAGES), private[i] = map(fds[i], MAP_PRIVATE, PAGES);
    check_fill(shared[i] + 5000, HUGE, (unsigned)i);
    check_fill(private[i] + 77, 1000, 10u + (unsigned)i);
    MUST(mprotect(private[i] + HUGE, HUGE, PROT_READ));
  }
  close(fds[1]), fds[1] = -1;
  pid_t child = tree_fork("child");
  if (child == 0) {
    for (int i = 0; i < COUNT; i++) {
      check_fill(private[i] + 2 * HUGE, 1000, 20u + (unsigned)i);
      MUST(munmap(private[i], HUGE));
    }
    tree_settled();
    for (int i = 0; i < COUNT; i++) {
      check_filled("the child's own page", private[i] + 2 * HUGE, 1000, 20u + (unsigned)i);
      strcpy(shared[i] + 2 * HUGE + 8192, "from the child");
    }
    tree_report(0);
  }
  tree_await("child");
  check_ready();
  tree_collect("child"), tree_wait(child, 0);
  for (int i = 0; i < COUNT; i++) {
    check_filled(KINDS[i], shared[i] + 5000, HUGE, (unsigned)i);
    check_filled("own bytes", private[i] + 77, 1000, 10u + (unsigned)i);
    CHECK("%s: one page of its own", is_own_page(private[i]), KINDS[i]);
    CHECK_BYTES("what was in the page", shared[i] + 5000, private[i] + 5000, HUGE - 5000);
    CHECK_STRING("what the child has stored", "from the child", private[i] + 2 * HUGE + 8192);
    CHECK_BYTES("the page that it has not written", shared[i] + HUGE, private[i] + HUGE, HUGE);
    shared[i][HUGE + 9] = 'x';
    CHECK_EQ("%s: the file is seen", 'x', private[i][HUGE + 9], KINDS[i]);
    private[i][2 * HUGE] = 'y';
    CHECK("%s: a page of its own, once written", is_own_page(private[i] + 2 * HUGE), KINDS[i]);
    CHECK_EQ("%s: the file is not", 0, shared[i][2 * HUGE], KINDS[i]);
  }
  struct stat st;
  CHECK_EQ("fstat", 0, fstat(fds[0], &st));
  CHECK_EQ("size", PAGES * HUGE, st.st_size);
  return check_finish();
}
