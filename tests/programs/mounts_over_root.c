/*
 * File systems in memory over the root of a mount namespace: no path of a process leads there, only setns(2) does.
 * Run in a mount namespace of its own.
 */
#include "check.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void put(const char *path, const char *text) {
  int fd = (int)MUST(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  MUST(write(fd, text, strlen(text)));
  MUST(close(fd));
}

static void check_file(const char *path, const char *wanted) {
  char text[32] = "";
  int fd = open(path, O_RDONLY);
  if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0) text[0] = 0;
  close(fd);
  CHECK_STRING("%s", wanted, text, path);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("below", "/mnt", "tmpfs", 0, NULL));
  put("/mnt/file", "below");
  MUST(mkdir("/mnt/lower", 0755));
  MUST(mkdir("/mnt/upper", 0755));
  MUST(mount("lower", "/mnt/lower", "tmpfs", 0, NULL));
  put("/mnt/lower/file", "lower");
  MUST(mkdir("/mnt/lower/in", 0755));
  MUST(mount("in", "/mnt/lower/in", "tmpfs", 0, NULL));
  put("/mnt/lower/in/file", "in the lower one");
  MUST(mount("upper", "/mnt/upper", "tmpfs", 0, NULL));
  put("/mnt/upper/file", "upper");
  int upper = (int)MUST(open("/mnt/upper/file", O_RDWR | O_CLOEXEC));
  MUST(mount("/mnt/lower", "/", NULL, MS_MOVE, NULL));
  MUST(mount("/mnt/upper", "/", NULL, MS_MOVE, NULL));

  check_ready();

  check_file("/mnt/file", "below");
  MUST(pwrite(upper, "U", 1, 0));
  int self = (int)MUST(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  int work = (int)MUST(open(".", O_PATH | O_CLOEXEC));
  int root = (int)MUST(open("/", O_PATH | O_CLOEXEC));
  MUST(setns(self, CLONE_NEWNS));
  check_file("/file", "Upper");
  MUST(umount2("/", MNT_DETACH));
  MUST(setns(self, CLONE_NEWNS));
  check_file("/file", "lower");
  check_file("/in/file", "in the lower one");
  MUST(fchdir(root));
  MUST(chroot("."));
  MUST(fchdir(work));
  return check_finish();
}
