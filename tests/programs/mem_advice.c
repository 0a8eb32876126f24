/* Flags of memory areas: madvise, mlock, guard pages; the observer compares VmFlags, this program their effect. */
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define MB (1024 * 1024ul)

static sigjmp_buf fault;
static void on_fault(int sig) {
  (void)sig;
  siglongjmp(fault, 1);
}
static int faults(volatile char *at) {
  if (sigsetjmp(fault, 1)) return 1;
  (void)*at;
  return 0;
}
/** The whole VmFlags line of the area that starts at `start`. */
static void flags_of(void *start, char *line, size_t size) {
  char text[512], begin[32];
  int inside = 0;
  snprintf(begin, sizeof(begin), "%lx-", (unsigned long)start);
  line[0] = 0;
  FILE *smaps = fopen("/proc/self/smaps", "re");
  while (smaps && fgets(text, sizeof(text), smaps)) {
    if (strncmp(text, begin, strlen(begin)) == 0) inside = 1;
    if (inside && strncmp(text, "VmFlags:", 8) == 0) {
      snprintf(line, size, "%.*s", (int)size - 1, text + 9);
      line[strcspn(line, "\n")] = 0;
      break;
    }
  }
  if (smaps) fclose(smaps);
}

struct area {
  const char *name;
  int advice;
  char *at;
  char before[256];
} areas[] = {
    {.name = "MADV_NORMAL", .advice = MADV_NORMAL},       {.name = "MADV_DONTFORK", .advice = MADV_DONTFORK},
    {.name = "MADV_WIPEONFORK", .advice = MADV_WIPEONFORK}, {.name = "MADV_DONTDUMP", .advice = MADV_DONTDUMP},
    {.name = "MADV_SEQUENTIAL", .advice = MADV_SEQUENTIAL}, {.name = "MADV_RANDOM", .advice = MADV_RANDOM},
    {.name = "MADV_HUGEPAGE", .advice = MADV_HUGEPAGE},   {.name = "MADV_NOHUGEPAGE", .advice = MADV_NOHUGEPAGE},
    {.name = "MADV_MERGEABLE", .advice = MADV_MERGEABLE},
};
enum { AREAS = sizeof(areas) / sizeof(areas[0]) };

static char *apart(size_t length) {
  /* a PROT_NONE page on both sides keeps the kernel from merging areas */
  char *p = (char *)MUST(mmap(NULL, length + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  MUST(mprotect(p + 4096, length, PROT_READ | PROT_WRITE));
  return p + 4096;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (int i = 0; i < AREAS; i++) {
    areas[i].at = apart(MB);
    check_fill(areas[i].at, MB, 10 + i);
    if (madvise(areas[i].at, MB, areas[i].advice)) check_note("this kernel has no %s", areas[i].name);
    flags_of(areas[i].at, areas[i].before, sizeof(areas[i].before));
  }
  /* RLIMIT_MEMLOCK may be small where CAP_IPC_LOCK is missing: 8 pages suffice */
  char *locked = apart(8 * 4096), *on_fault_locked = apart(8 * 4096), before_locked[256], before_on_fault[256];
  check_fill(locked, 8 * 4096, 30);
  MUST(mlock(locked, 8 * 4096));
  MUST(mlock2(on_fault_locked, 8 * 4096, MLOCK_ONFAULT));
  check_fill(on_fault_locked, 4096, 31);
  flags_of(locked, before_locked, sizeof(before_locked));
  flags_of(on_fault_locked, before_on_fault, sizeof(before_on_fault));
  char *guarded = apart(MB);
  check_fill(guarded, MB, 40);
  int have_guards = madvise(guarded + 16 * 4096, 4 * 4096, MADV_GUARD_INSTALL) == 0;
  if (!have_guards) check_note("this kernel has no MADV_GUARD_INSTALL");
  /* guards in an area in which nothing was ever touched, and at the very start and end of one */
  char *guarded_empty = apart(MB);
  if (have_guards) {
    MUST(madvise(guarded_empty, 4096, MADV_GUARD_INSTALL));
    MUST(madvise(guarded_empty + MB - 4096, 4096, MADV_GUARD_INSTALL));
  }
  char *dropped = apart(MB);
  check_fill(dropped, MB, 41);
  MUST(madvise(dropped, MB / 2, MADV_DONTNEED));
  char *freed = apart(MB);
  check_fill(freed, MB, 42);
  MUST(madvise(freed, MB, MADV_FREE));

  check_ready();

  char after[256];
  for (int i = 0; i < AREAS; i++) {
    flags_of(areas[i].at, after, sizeof(after));
    CHECK_STRING("VmFlags of the area with %s", areas[i].before, after, areas[i].name);
    check_filled(check_name("content of the area with %s", areas[i].name), areas[i].at, MB, 10 + i);
  }
  flags_of(locked, after, sizeof(after));
  CHECK_STRING("VmFlags of locked memory", before_locked, after);
  flags_of(on_fault_locked, after, sizeof(after));
  CHECK_STRING("VmFlags of memory locked on fault", before_on_fault, after);
  check_filled("locked memory", locked, 8 * 4096, 30);
  unsigned char present[8];
  MUST(mincore(on_fault_locked, 8 * 4096, present));
  check_filled("memory locked on fault", on_fault_locked, 4096, 31);
  CHECK_EQ("untouched page of memory locked on fault is absent", 0, present[5] & 1);
  signal(SIGSEGV, on_fault);
  if (have_guards) {
    for (int i = 15; i < 21; i++)
      CHECK_EQ("guard at page %d", i >= 16 && i < 20, faults(guarded + i * 4096), i);
    CHECK("guard at the start of an untouched area", faults(guarded_empty));
    CHECK("no guard after the start", !faults(guarded_empty + 4096));
    CHECK("guard at the end of an untouched area", faults(guarded_empty + MB - 1));
    CHECK("no guard before the end", !faults(guarded_empty + MB - 4097));
  }
  check_filled("memory before the guard", guarded, 16 * 4096, 40);
  check_zero("memory given back by MADV_DONTNEED", dropped, MB / 2);
  unsigned char *expected = malloc(MB);
  check_fill(expected, MB, 41);
  CHECK_BYTES("memory after what was given back", expected + MB / 2, dropped + MB / 2, MB / 2);
  check_fill(expected, MB, 42);
  for (size_t i = 0; i < MB; i += 4096)
    CHECK("page %zu after MADV_FREE is whole or zero", !memcmp(freed + i, expected + i, 4096) || freed[i] == 0, i / 4096);
  /* what a fork sees tells DONTFORK and WIPEONFORK */
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, on_fault);
    _exit((faults(areas[1].at) ? 1 : 0) | (areas[2].at[5] == 0 && areas[2].at[6] == 0 ? 2 : 0) | (faults(areas[0].at) ? 4 : 0));
  }
  int status;
  MUST(waitpid(child, &status, 0));
  CHECK_EQ("DONTFORK and WIPEONFORK as a child sees them", 3 << 8, status);
  return check_finish();
}
