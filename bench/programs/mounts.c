/*
 * A process with many mounts in a mount namespace of its own, whose root is the
 * directory of the benchmark.
 *
 * Usage: mounts PAGE MOUNTS GROUPS
 *
 * PAGE    file of one page, mapped shared: what the benchmark reads and asks;
 *         page.h. Its directory becomes the root.
 * MOUNTS  half of them file systems in memory with a file in each, the others
 *         binds of these.
 * GROUPS  how many of the file systems share mounts with their bind.
 *
 * The process reads the clock without a pause. Asked, it looks for every file,
 * and whether what is mounted in one of a group is there in the other.
 *
 * It is linked statically and executed anew in its root, where there is nothing
 * else.
 */

#define _GNU_SOURCE
#include <libgen.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "page.h"

#define INSIDE "inside"

static uint64_t mounts, groups;

/* Makes a directory of ckpt's and CRIU's namespace the root of a new one. */
static void become_root(const char *directory) {
  while (umount2(directory, MNT_DETACH) == 0) {}
  MUST(mount(directory, directory, NULL, MS_BIND, NULL));
  MUST(unshare(CLONE_NEWNS));
  MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
  int self = MUST(open("/proc/self/exe", O_RDONLY));
  MUST(chdir(directory));
  unlink("mounts");
  int copy = MUST(open("mounts", O_CREAT | O_WRONLY, 0755));
  struct stat status;
  MUST(fstat(self, &status));
  MUST(sendfile(copy, self, NULL, status.st_size));
  MUST(close(copy));
  if (access("null", F_OK)) MUST(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
  mkdir("top", 0755);
  mkdir("proc", 0755);
  /* CRIU cannot restore without one */
  MUST(mount("proc", "proc", "proc", 0, NULL));
  MUST(syscall(SYS_pivot_root, ".", "."));
  MUST(umount2(".", MNT_DETACH));
  MUST(chdir("/"));
}

static void make(void) {
  char point[64], other[64];
  MUST(mount("top", "/top", "tmpfs", 0, NULL));
  for (uint64_t i = 0; i < mounts; i++) {
    sprintf(point, "/top/%lu", i);
    MUST(mkdir(point, 0755));
    if (i % 2) {
      sprintf(other, "/top/%lu", i - 1);
      MUST(mount(other, point, NULL, MS_BIND, NULL));
      continue;
    }
    MUST(mount("bench", point, "tmpfs", 0, "size=64k"));
    if (i / 2 < groups) MUST(mount(NULL, point, NULL, MS_SHARED, NULL));
    sprintf(other, "/top/%lu/probe", i);
    MUST(mkdir(other, 0755));
    sprintf(other, "/top/%lu/word", i);
    int fd = MUST(open(other, O_CREAT | O_WRONLY, 0644));
    MUST(write(fd, &i, sizeof i));
    MUST(close(fd));
  }
}

/* Whether what is mounted in a file system is there in its bind. */
static int is_shared(uint64_t i) {
  char probe[64];
  struct stat before, after;
  sprintf(probe, "/top/%lu/probe", i + 1);
  if (stat(probe, &before)) return 0;
  sprintf(probe, "/top/%lu/probe", i);
  if (mount("probe", probe, "tmpfs", 0, NULL)) return 0;
  sprintf(probe, "/top/%lu/probe", i + 1);
  int seen = stat(probe, &after) == 0 && before.st_dev != after.st_dev;
  sprintf(probe, "/top/%lu/probe", i);
  return umount(probe) == 0 && seen;
}

static void check(uint64_t question) {
  (void)question;
  uint64_t wrong = 0, word;
  for (uint64_t i = 0; i < mounts; i++) {
    char file[64];
    sprintf(file, "/top/%lu/word", i);
    int fd = open(file, O_RDONLY);
    wrong += fd < 0 || read(fd, &word, sizeof word) != sizeof word ||
             word != i / 2 * 2;
    close(fd);
    if (i % 2 == 0 && i + 1 < mounts) wrong += is_shared(i) != (i / 2 < groups);
  }
  page->wrong = wrong;
  page->threads = 1;
}

int main(int argc, char **argv) {
  if (argc != 4 && !(argc == 5 && !strcmp(argv[4], INSIDE))) {
    fprintf(stderr, "usage: mounts PAGE MOUNTS GROUPS\n");
    return 2;
  }
  if (argc == 4) {
    become_root(dirname(strdup(argv[1])));
    char inside[64];
    snprintf(inside, sizeof inside, "/%s", basename(argv[1]));
    return execl("/mounts", argv[0], inside, argv[2], argv[3], INSIDE, NULL);
  }
  for (int fd = 0; fd < 3; fd++) MUST(dup2(MUST(open("/null", O_RDWR | O_CLOEXEC)), fd));
  open_page(argv[1]);
  close_range(3, ~0u, 0);
  mounts = strtoull(argv[2], NULL, 10);
  groups = strtoull(argv[3], NULL, 10);
  make();
  run(NULL, check);
}
