/* What grows later: the heap by brk, the main stack, a growsdown mapping, thread stacks, malloc arenas. */
#include "check.h"
#include <sys/mman.h>
#include <sys/resource.h>

__attribute__((noinline)) static unsigned deep(int levels) {
  volatile unsigned char frame[16 * 1024];
  memset((void *)frame, levels & 0xff, sizeof(frame));
  unsigned below = levels > 0 ? deep(levels - 1) : 0;
  for (size_t i = 0; i < sizeof(frame); i += 512)
    if (frame[i] != (levels & 0xff)) return 1u << 20;
  return below + 1;
}

static atomic_int tid;
static void *thread(void *result) {
  unsigned char local[4096];
  check_fill(local, sizeof(local), 77);
  atomic_store(&tid, check_tid());
  check_wait_go();
  unsigned char expected[4096];
  check_fill(expected, sizeof(expected), 77);
  *(unsigned *)result = memcmp(local, expected, sizeof(local)) ? 0 : deep(100);
  return NULL;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  unsigned char local[64 * 1024];
  check_fill(local, sizeof(local), 1);
  char *heap = (char *)MUST(sbrk(256 * 1024));
  check_fill(heap, 256 * 1024, 2);
  char *end = sbrk(0);
  /* an unaligned break is part of the state too */
  MUST(sbrk(123));
  void *blocks[500];
  for (int i = 0; i < 500; i++) {
    blocks[i] = malloc((size_t)(i * 37 + 1));
    check_fill(blocks[i], (size_t)(i * 37 + 1), 1000 + i);
  }
  /* far from where the kernel places new mappings, so that it has room to grow into */
  char *grows = (char *)MUST(mmap((void *)0x200000000, 4096, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
  check_fill(grows, 4096, 3);
  for (int i = 1; i < 8; i++) grows[-i * 4096] = (char)i;
  pthread_t id;
  unsigned thread_depth = 0;
  MUST0(pthread_create(&id, NULL, thread, &thread_depth));
  while (!atomic_load(&tid)) check_sleep_ms(1);
  char *before_break = sbrk(0);

  check_ready();

  check_filled("array on the stack", local, sizeof(local), 1);
  check_filled("heap", heap, 256 * 1024, 2);
  CHECK_EQ("break", (long)before_break, (long)sbrk(0));
  CHECK("the break moved on", before_break > end);
  for (int i = 0; i < 500; i++) check_filled(check_name("allocation %d", i), blocks[i], (size_t)(i * 37 + 1), 1000 + i);
  for (int i = 0; i < 500; i += 2) free(blocks[i]);
  char *more = (char *)MUST(sbrk(1 << 20));
  CHECK_EQ("the heap grows where it ended", (long)before_break, (long)more);
  memset(more, 5, 1 << 20);
  struct rlimit stack;
  getrlimit(RLIMIT_STACK, &stack);
  int levels = stack.rlim_cur >= 8 << 20 ? 300 : 20;
  CHECK_EQ("the stack grows", levels + 1, deep(levels));
  check_filled("growsdown mapping", grows, 4096, 3);
  for (int i = 1; i < 8; i++) CHECK_EQ("grown page %d of a growsdown mapping", i, grows[-i * 4096], i);
  for (int i = 8; i < 100; i++) grows[-i * 4096] = (char)i;
  CHECK_EQ("the growsdown mapping grows on", 99, grows[-99 * 4096]);
  MUST0(pthread_join(id, NULL));
  CHECK_EQ("the stack of a thread is usable", 101, thread_depth);
  char *large = malloc(64 << 20);
  memset(large, 1, 64 << 20);
  free(large);
  return check_finish();
}
