/*
 * Private memory inherited over fork: tree_cow WORK_DIRECTORY MIB CHILDREN [moved]. Every child has written a page in
 * every 64 of its own, and sees its parent's in all others; so does a child's child, and, with `moved`, a child that
 * has moved its memory to another address.
 * The tests compare how much memory all of them use together.
 */
#include "tree.h"

#define PAGE 4096
#define STRIDE 64
static size_t pages;
static char *memory;

static uint64_t mix(uint64_t x) { return (x + 1) * 0x9e3779b97f4a7c15u; }
static void write_page(char *at, uint64_t writer, size_t page) {
  uint64_t *words = (uint64_t *)(at + page * PAGE);
  for (size_t i = 0; i < PAGE / 8; i++) words[i] = mix(writer << 40 ^ page << 9 ^ i);
}
static size_t wrong_page(const char *at, uint64_t writer, size_t page) {
  const uint64_t *words = (const uint64_t *)(at + page * PAGE);
  size_t wrong = 0;
  for (size_t i = 0; i < PAGE / 8; i++) wrong += words[i] != mix(writer << 40 ^ page << 9 ^ i);
  return wrong;
}
/** A process has written every page whose number is `first` modulo STRIDE. */
static void write_own(char *at, uint64_t writer, size_t first) {
  for (size_t page = first; page < pages; page += STRIDE) write_page(at, writer, page);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc < 4) return 2;
  pages = (size_t)atoi(argv[2]) * 256;
  int children = atoi(argv[3]);
  if (children > STRIDE - 2) return 2;
  memory = (char *)MUST(mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  MUST(madvise(memory, pages * PAGE, MADV_NOHUGEPAGE));
  for (size_t page = 0; page < pages; page++) write_page(memory, 0, page);
  pid_t pids[STRIDE], below = 0;
  char name[64];
  for (int n = 1; n <= children; n++) {
    pids[n] = tree_fork("child-%d", n);
    if (pids[n]) continue;
    write_own(memory, (uint64_t)n, (size_t)n);
    if (n == 1) {
      below = tree_fork("below");
      if (below == 0) {
        write_own(memory, STRIDE, 0);
        tree_settled();
        size_t wrong = 0;
        for (size_t page = 0; page < pages; page++)
          wrong += wrong_page(memory, page % STRIDE == 0 ? STRIDE : page % STRIDE == 1 ? 1 : 0, page);
        CHECK_EQ("words that are wrong", 0, wrong);
        tree_report(0);
      }
      tree_await("below");
    }
    if (n == 2 && argc > 4) {
      char *place = (char *)MUST(mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      memory = (char *)MUST(mremap(memory, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place));
    }
    tree_settled();
    size_t wrong = 0;
    for (size_t page = 0; page < pages; page++)
      wrong += wrong_page(memory, page % STRIDE == (size_t)n ? (uint64_t)n : 0, page);
    CHECK_EQ("words that are wrong", 0, wrong);
    /* nobody else sees what is written now */
    for (size_t page = 0; page < pages; page += 16) write_page(memory, 999, page);
    if (below) tree_wait(below, 0);
    tree_report(0);
  }
  for (int n = 1; n <= children; n++) {
    snprintf(name, sizeof(name), "child-%d", n);
    tree_await(name);
  }
  check_ready();
  if (children) tree_collect("below");
  for (int n = 1; n <= children; n++) {
    snprintf(name, sizeof(name), "child-%d", n);
    tree_collect(name);
    tree_wait(pids[n], 0);
  }
  size_t wrong = 0;
  for (size_t page = 0; page < pages; page++) wrong += wrong_page(memory, 0, page);
  CHECK_EQ("words that are wrong in the root", 0, wrong);
  return check_finish();
}
