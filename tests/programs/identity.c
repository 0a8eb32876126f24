/* How a process describes itself: argv, environment, auxv, exe, comm, the areas of PR_SET_MM; and the vdso. */
#include "check.h"
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sched.h>

extern char **environ;

static size_t read_file(const char *path, char *to, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, to, size - 1);
  if (fd >= 0) close(fd);
  to[n < 0 ? 0 : n] = 0;
  return n < 0 ? 0 : (size_t)n;
}

static const char *const files[] = {"cmdline", "environ", "auxv", "comm", "statm"};
enum { FILES = 4 };

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* a program may rewrite its title in place, and change its name */
  char *title = argv[0];
  title[0] = 'T';
  MUST(prctl(PR_SET_NAME, "odd )name ("));
  MUST(setenv("CKPT_TEST_LATER", "set after the start", 1));
  static char before[FILES][65536], after[65536];
  size_t lengths[FILES];
  char path[64], exe_before[4096], exe_after[4096];
  for (int i = 0; i < FILES; i++) {
    snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
    lengths[i] = read_file(path, before[i], sizeof(before[i]));
  }
  exe_before[MUST(readlink("/proc/self/exe", exe_before, sizeof(exe_before) - 1))] = 0;
  unsigned long vdso = getauxval(AT_SYSINFO_EHDR), random_at = getauxval(AT_RANDOM);
  unsigned char random[16], magic[4];
  memcpy(random, (void *)random_at, 16);
  pid_t pid = getpid(), parent_session = getsid(0), group = getpgrp();
  char **before_environ = environ;
  struct timespec mono, real, boot, coarse;
  clock_gettime(CLOCK_MONOTONIC, &mono);
  clock_gettime(CLOCK_REALTIME, &real);
  clock_gettime(CLOCK_BOOTTIME, &boot);
  struct timespec cpu;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);

  check_ready();

  for (int i = 0; i < FILES; i++) {
    snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
    size_t n = read_file(path, after, sizeof(after));
    CHECK_EQ("length of %s", lengths[i], n, path);
    CHECK_BYTES("content of %s", before[i], after, lengths[i], path);
  }
  exe_after[MUST(readlink("/proc/self/exe", exe_after, sizeof(exe_after) - 1))] = 0;
  CHECK_STRING("exe link", exe_before, exe_after);
  char name[16];
  prctl(PR_GET_NAME, name);
  CHECK_STRING("comm", "odd )name (", name);
  CHECK_EQ("argv[0][0]", 'T', argv[0][0]);
  CHECK_EQ("pid", pid, syscall(SYS_getpid));
  CHECK_EQ("tid", pid, check_tid());
  CHECK_EQ("session", parent_session, getsid(0));
  CHECK_EQ("process group", group, getpgrp());
  CHECK_EQ("environ", (long)before_environ, (long)environ);
  CHECK_STRING("variable set later", "set after the start", getenv("CKPT_TEST_LATER") ?: "");
  CHECK_EQ("address of the vdso", vdso, getauxval(AT_SYSINFO_EHDR));
  memcpy(magic, (void *)vdso, 4);
  CHECK_BYTES("the vdso is there", "\177ELF", magic, 4);
  CHECK_BYTES("AT_RANDOM bytes", random, (void *)random_at, 16);
  /* every clock of the vdso agrees with the system call and does not run backwards */
  static const int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_MONOTONIC_RAW};
  for (size_t i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++)
    for (int turn = 0; turn < 1000; turn++) {
      struct timespec a, b, c;
      syscall(SYS_clock_gettime, clocks[i], &a);
      clock_gettime(clocks[i], &b);
      syscall(SYS_clock_gettime, clocks[i], &c);
      int ordered = (a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec <= b.tv_nsec)) &&
                    (b.tv_sec < c.tv_sec || (b.tv_sec == c.tv_sec && b.tv_nsec <= c.tv_nsec));
      if (!ordered) {
        CHECK("clock %d of the vdso agrees with the kernel", false, clocks[i]);
        break;
      }
    }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  CHECK("the monotonic clock did not run backwards", now.tv_sec > mono.tv_sec || (now.tv_sec == mono.tv_sec && now.tv_nsec >= mono.tv_nsec));
  clock_gettime(CLOCK_BOOTTIME, &now);
  CHECK("the boot time did not run backwards", now.tv_sec > boot.tv_sec || (now.tv_sec == boot.tv_sec && now.tv_nsec >= boot.tv_nsec));
  clock_gettime(CLOCK_MONOTONIC_COARSE, &coarse);
  CHECK("coarse clock", coarse.tv_sec > 0);
  CHECK("the real time did not run backwards", time(NULL) >= real.tv_sec);
  CHECK("the processor is one that exists", sched_getcpu() >= 0);
  struct timeval day;
  CHECK_EQ("gettimeofday", 0, gettimeofday(&day, NULL));
  return check_finish();
}
