/*
 * The protocol of every end-to-end test program:
 *
 *   int main(int argc, char **argv) {
 *     check_start(argc, argv);       // argv[1] is the work directory
 *     ... build the state ...        // MUST(...) for every step
 *     check_ready();                 // writes `ready`, returns once `go` exists
 *     ... compare the state ...      // CHECK_EQ("name", before, after)
 *     return check_finish();         // writes `result`: "ok" or one line for each difference
 *   }
 *
 * Between `ready` and `go` the program may be dumped and restored any number of times; it never knows. The wait in
 * check_ready() uses nothing but the stack, clock_nanosleep and access, so that it works whatever state is under test.
 * Only the main thread calls the CHECK macros; other threads leave what they saw in memory.
 */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHECK_UNUSED __attribute__((unused))

/** The work directory; a program that changes its root sets it to the new name of the same directory. */
static char check_dir[4096];
static char check_report[1 << 16];
static size_t check_used;
/** Set by check_ready() once `go` exists: what other threads wait for. */
static atomic_int check_go_seen CHECK_UNUSED;

/** A program that nobody tells to go on ends by itself, so that a broken test leaves nothing behind. */
#define CHECK_SECONDS_TO_LIVE 300

CHECK_UNUSED __attribute__((format(printf, 1, 2))) static void check_line(const char *format, ...) {
  va_list list;
  va_start(list, format);
  size_t room = sizeof(check_report) - check_used;
  int n = vsnprintf(check_report + check_used, room, format, list);
  va_end(list);
  if (n > 0) check_used += (size_t)n < room ? (size_t)n : room - 1;
}

CHECK_UNUSED static void check_write_file(const char *name, const char *text, size_t length) {
  char path[4200], temporary[4300];
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  snprintf(temporary, sizeof(temporary), "%s.new", path);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, text, length) != (ssize_t)length || close(fd) != 0 || rename(temporary, path) != 0) {
    dprintf(2, "cannot write %s: %s\n", path, strerror(errno));
    _exit(4);
  }
}

/** Ends the program because the state under test could not be built. */
CHECK_UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void check_die(const char *format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  int n = snprintf(text, sizeof(text), "cannot build the state: ");
  n += vsnprintf(text + n, sizeof(text) - (size_t)n - 2, format, list);
  va_end(list);
  n += snprintf(text + n, 2, "\n");
  check_write_file("result", text, (size_t)n);
  _exit(3);
}

CHECK_UNUSED static long check_must(long value, const char *expression, const char *file, int line) {
  if (value == -1) check_die("%s:%d: %s: %s", file, line, expression, strerror(errno));
  return value;
}
/** A step of the building that must not give -1 (or MAP_FAILED). */
#define MUST(expression) check_must((long)(expression), #expression, __FILE__, __LINE__)
/** A step of the building that must give 0; the value is an error number (pthread functions). */
#define MUST0(expression)                                                                        \
  do {                                                                                           \
    int must0 = (int)(expression);                                                               \
    if (must0) check_die("%s:%d: %s: %s", __FILE__, __LINE__, #expression, strerror(must0));     \
  } while (0)

CHECK_UNUSED static void check_equal(const char *name, long long before, long long after) {
  if (before != after)
    check_line("%s: before %lld (%#llx), after %lld (%#llx)\n", name, before, (unsigned long long)before, after,
               (unsigned long long)after);
}
/** `name` may be a printf format when more arguments follow the two values. */
#define CHECK_EQ(name, before, after, ...) check_equal(CHECK_NAME(name, ##__VA_ARGS__), (long long)(before), (long long)(after))
#define CHECK(name, condition, ...) check_equal(CHECK_NAME(name, ##__VA_ARGS__), 1, !!(condition))
#define CHECK_NAME(name, ...) check_name(name, ##__VA_ARGS__)

CHECK_UNUSED __attribute__((format(printf, 1, 2))) static const char *check_name(const char *format, ...) {
  static char names[4][256];
  static int next;
  char *name = names[next++ & 3];
  va_list list;
  va_start(list, format);
  vsnprintf(name, sizeof(names[0]), format, list);
  va_end(list);
  return name;
}

CHECK_UNUSED static void check_string(const char *name, const char *before, const char *after) {
  if (strcmp(before, after) != 0) check_line("%s: before \"%s\", after \"%s\"\n", name, before, after);
}
#define CHECK_STRING(name, before, after, ...) check_string(CHECK_NAME(name, ##__VA_ARGS__), before, after)

CHECK_UNUSED static void check_bytes(const char *name, const void *before, const void *after, size_t length) {
  const unsigned char *a = before, *b = after;
  size_t differing = 0, first = 0;
  for (size_t i = length; i-- > 0;)
    if (a[i] != b[i]) differing++, first = i;
  if (differing)
    check_line("%s: %zu of %zu bytes differ, first at %#zx: before %#x, after %#x\n", name, differing, length, first,
               a[first], b[first]);
}
#define CHECK_BYTES(name, before, after, length, ...) check_bytes(CHECK_NAME(name, ##__VA_ARGS__), before, after, length)

/** Says in the log what this machine cannot do, so that a test that proves less than it could is seen. */
CHECK_UNUSED __attribute__((format(printf, 1, 2))) static void check_note(const char *format, ...) {
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof(text), format, list);
  va_end(list);
  dprintf(2, "note: %s\n", text);
}

CHECK_UNUSED static void check_start(int argc, char **argv) {
  if (argc < 2 || strlen(argv[1]) >= sizeof(check_dir)) {
    dprintf(2, "usage: %s WORK_DIRECTORY\n", argv[0]);
    _exit(2);
  }
  strcpy(check_dir, argv[1]);
}

CHECK_UNUSED static double check_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

CHECK_UNUSED static void check_sleep_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) continue;
}

/** Writes `ready` (with the pid in it) and returns once the file `go` exists. */
CHECK_UNUSED static void check_ready(void) {
  char path[4200];
  int n = snprintf(path, sizeof(path), "%d\n", getpid());
  check_write_file("ready", path, (size_t)n);
  snprintf(path, sizeof(path), "%s/go", check_dir);
  double end = check_seconds() + CHECK_SECONDS_TO_LIVE;
  while (access(path, F_OK) != 0) {
    check_sleep_ms(2);
    if (check_seconds() > end) _exit(5);
  }
  atomic_store(&check_go_seen, 1);
}

/** For other threads: returns once main has left check_ready(). */
CHECK_UNUSED static void check_wait_go(void) {
  while (!atomic_load(&check_go_seen)) check_sleep_ms(2);
}

/** Writes `result`; the value is the exit status. */
CHECK_UNUSED static int check_finish(void) {
  int differs = check_used > 0;
  if (!differs) check_line("ok\n");
  check_write_file("result", check_report, check_used);
  return differs;
}

/** Fills memory with bytes that no other seed and no other offset gives. */
CHECK_UNUSED static void check_fill(void *memory, size_t length, uint64_t seed) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
  unsigned char *p = memory;
  for (size_t i = 0; i < length; i++) {
    if (i % 8 == 0) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    p[i] = (unsigned char)(x >> (i % 8 * 8));
  }
}

/** Compares memory with what check_fill(…, seed) wrote. */
CHECK_UNUSED static void check_filled(const char *name, const void *memory, size_t length, uint64_t seed) {
  unsigned char *expected = malloc(length);
  if (!expected) check_die("no memory to compare %s", name);
  check_fill(expected, length, seed);
  check_bytes(name, expected, memory, length);
  free(expected);
}

/** Compares memory with zeros. */
CHECK_UNUSED static void check_zero(const char *name, const void *memory, size_t length) {
  const unsigned char *p = memory;
  for (size_t i = 0; i < length; i++)
    if (p[i]) {
      check_line("%s: byte %#zx of %zu: before 0, after %#x\n", name, i, length, p[i]);
      return;
    }
}

CHECK_UNUSED static pid_t check_tid(void) { return (pid_t)syscall(SYS_gettid); }

/** The first line of a /proc file, or one that begins with `key`; "" when there is none. */
CHECK_UNUSED static const char *check_proc(const char *path, const char *key) {
  static char lines[4][512];
  static int next;
  char *line = lines[next++ & 3];
  line[0] = 0;
  FILE *file = fopen(path, "re");
  if (!file) return line;
  size_t n = strlen(key);
  while (fgets(line, sizeof(lines[0]), file)) {
    if (strncmp(line, key, n) == 0) break;
    line[0] = 0;
  }
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  return line;
}

/** Waits until thread `tid` of this process sleeps in a system call, so that `ready` is not said too early. */
CHECK_UNUSED static void check_until_asleep(pid_t tid) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
  for (int i = 0; i < 5000; i++) {
    if (strncmp(check_proc(path, "State:"), "State:\tS", 8) == 0) return;
    check_sleep_ms(1);
  }
  check_die("thread %d does not sleep", tid);
}
#endif
