/* Resource limits, umask, OOM score, core dump filter, login uid. */
#include "check.h"
#include <sys/resource.h>
#include <sys/stat.h>

static const char *const files[] = {"oom_score_adj", "coredump_filter", "loginuid", "timerslack_ns"};
enum { FILES = sizeof(files) / sizeof(files[0]) };

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) check_note("%s cannot be set here: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  struct rlimit before[RLIM_NLIMITS], after;
  /* only lowering is possible without CAP_SYS_RESOURCE; odd values, so that none is a default */
  for (int i = 0; i < RLIM_NLIMITS; i++) {
    MUST(getrlimit((__rlimit_resource_t)i, &before[i]));
    struct rlimit wanted = before[i];
    switch (i) {
      case RLIMIT_NOFILE: wanted.rlim_cur = 77, wanted.rlim_max = wanted.rlim_max < 801 ? wanted.rlim_max : 801; break;
      case RLIMIT_STACK: wanted.rlim_cur = 6 << 20; break;
      case RLIMIT_CORE: wanted.rlim_cur = 4096, wanted.rlim_max = 12288; break;
      case RLIMIT_CPU: wanted.rlim_cur = 100000, wanted.rlim_max = 200001; break;
      case RLIMIT_FSIZE: wanted.rlim_cur = 1 << 30, wanted.rlim_max = 3ul << 30; break;
      case RLIMIT_DATA: wanted.rlim_max = 5ul << 30, wanted.rlim_cur = 4ul << 30; break;
      case RLIMIT_RSS: wanted.rlim_cur = 123456789, wanted.rlim_max = 987654321; break;
      case RLIMIT_AS: wanted.rlim_cur = 7ul << 30, wanted.rlim_max = 9ul << 30; break;
      case RLIMIT_SIGPENDING: wanted.rlim_cur = 555; break;
      case RLIMIT_MSGQUEUE: wanted.rlim_cur = 100001; break;
      case RLIMIT_RTTIME: wanted.rlim_cur = 10000000, wanted.rlim_max = 20000000; break;
      case RLIMIT_LOCKS: wanted.rlim_cur = 9; break;
      default: break;
    }
    MUST(setrlimit((__rlimit_resource_t)i, &wanted));
    MUST(getrlimit((__rlimit_resource_t)i, &before[i]));
  }
  umask(0026);
  put("/proc/self/oom_score_adj", "321");
  put("/proc/self/coredump_filter", "0x17");
  put("/proc/self/loginuid", "4242");
  char texts[FILES][512], path[64];
  for (int i = 0; i < FILES; i++) {
    snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
    strcpy(texts[i], check_proc(path, ""));
  }

  check_ready();

  for (int i = 0; i < RLIM_NLIMITS; i++) {
    MUST(getrlimit((__rlimit_resource_t)i, &after));
    CHECK_EQ("soft limit %d", before[i].rlim_cur, after.rlim_cur, i);
    CHECK_EQ("hard limit %d", before[i].rlim_max, after.rlim_max, i);
  }
  CHECK_EQ("umask", 0026, umask(0));
  for (int i = 0; i < FILES; i++) {
    snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
    CHECK_STRING("%s", texts[i], check_proc(path, ""), path);
  }
  return check_finish();
}
