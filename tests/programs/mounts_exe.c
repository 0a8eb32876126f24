/*
 * A program whose own file is on a mount that something is mounted over, or that was unmounted. Run in a mount namespace
 * of its own.
 */
#include "check.h"
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

static void copy_itself(const char *to) {
  int from = (int)MUST(open("/proc/self/exe", O_RDONLY));
  int copy = (int)MUST(open(to, O_WRONLY | O_CREAT, 0700));
  struct stat status;
  MUST(fstat(from, &status));
  for (off_t done = 0; done < status.st_size;) MUST(sendfile(copy, from, &done, (size_t)(status.st_size - done)));
  MUST(close(copy));
  MUST(close(from));
}

static long bytes_of(const char *path) {
  struct stat status = { 0 };
  MUST(stat(path, &status));
  return (long)status.st_size;
}

int main(int argc, char **argv) {
  if (getenv("AGAIN") == NULL) {
    MUST(mount("programs", "/mnt", "tmpfs", 0, NULL));
    copy_itself("/mnt/program");
    MUST(setenv("AGAIN", "1", 1));
    MUST(execv("/mnt/program", argv));
  }
  check_start(argc, argv);
  if (strcmp(argv[2], "covered") == 0) MUST(mount("over", "/mnt", "tmpfs", 0, NULL));
  else MUST(umount2("/mnt", MNT_DETACH));
  char before[256] = "", after[256] = "";
  MUST(readlink("/proc/self/exe", before, sizeof(before) - 1));
  long bytes = bytes_of("/proc/self/exe");

  check_ready();

  MUST(readlink("/proc/self/exe", after, sizeof(after) - 1));
  CHECK_STRING("%s", before, after, "/proc/self/exe");
  CHECK_EQ("bytes of the program", bytes, bytes_of("/proc/self/exe"));
  CHECK("no path leads to it", access("/mnt/program", F_OK) != 0);
  return check_finish();
}
