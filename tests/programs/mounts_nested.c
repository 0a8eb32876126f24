/*
 * A process with a child in a mount namespace of its own, a copy of its parent's: what is mounted in one appears in
 * the other where both are peers, only in the child where that is a slave, and nowhere where both are private. A
 * third process has files of both namespaces open.
 */
#include "check.h"
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char *const points[] = { "/mnt/shared", "/mnt/slave", "/mnt/private" };

/** Whether a process sees a mount point. */
static bool sees(pid_t pid, const char *point) {
  char path[64], line[4096], wanted[128];
  snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
  snprintf(wanted, sizeof(wanted), " %s ", point);
  FILE *file = fopen(path, "r");
  if (!file) check_die("%s: %s", path, strerror(errno));
  bool found = false;
  while (fgets(line, sizeof(line), file)) found |= strstr(line, wanted) != NULL;
  fclose(file);
  return found;
}

/** Mounts something at `point`/`name` in the namespace of a process. */
static void probe(pid_t pid, const char *point, const char *name) {
  char path[128], space[64];
  snprintf(path, sizeof(path), "%s/%s", point, name);
  snprintf(space, sizeof(space), "/proc/%d/ns/mnt", pid);
  pid_t helper = fork();
  if (helper == 0) {
    int fd = open(space, O_RDONLY | O_CLOEXEC);
    _exit(setns(fd, CLONE_NEWNS) || mount("probe", path, "tmpfs", 0, NULL) ? 1 : 0);
  }
  int status = -1;
  waitpid(helper, &status, 0);
  CHECK_EQ("mounting %s for %d", 0, status, path, pid == getpid());
}

static pid_t start(void (*build)(void)) {
  int ready[2];
  char byte;
  MUST(pipe2(ready, O_CLOEXEC));
  pid_t pid = (pid_t)MUST(fork());
  if (pid > 0) {
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) check_die("a child did not begin");
    close(ready[0]);
    return pid;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  build();
  MUST(write(ready[1], "", 1));
  close(ready[0]), close(ready[1]);
  for (;;) pause();
}

static void unshared(void) {
  MUST(unshare(CLONE_NEWNS));
  MUST(mount(NULL, "/mnt/slave", NULL, MS_SLAVE, NULL));
  MUST(mount("own", "/mnt/private", "tmpfs", MS_NODEV, "size=64k"));
  int fd = (int)MUST(open("/mnt/private/own", O_RDWR | O_CREAT, 0600));
  MUST(write(fd, "own", 3));
}

static pid_t other;

/** Comes to see a file of another namespace through /proc, and keeps it open. */
static void between(void) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/root/mnt/private/own", other);
  MUST(open(path, O_RDONLY));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("top", "/mnt", "tmpfs", 0, NULL));
  MUST(mount(NULL, "/mnt", NULL, MS_PRIVATE, NULL));
  for (int i = 0; i < 3; i++) {
    char path[64];
    MUST(mkdir(points[i], 0755));
    MUST(mount("part", points[i], "tmpfs", 0, NULL));
    MUST(mount(NULL, points[i], NULL, i == 2 ? MS_PRIVATE : MS_SHARED, NULL));
    for (const char *name = "pc"; *name; name++) {
      snprintf(path, sizeof(path), "%s/%c", points[i], *name);
      MUST(mkdir(path, 0755));
    }
  }
  pid_t child = start(unshared);
  other = child;
  pid_t third = start(between);

  check_ready();

  probe(getpid(), "/mnt/shared", "p");
  probe(getpid(), "/mnt/slave", "p");
  probe(getpid(), "/mnt/private", "p");
  probe(child, "/mnt/shared", "c");
  probe(child, "/mnt/slave", "c");
  CHECK("the child sees a mount of its peer", sees(child, "/mnt/shared/p"));
  CHECK("the child sees a mount of its master", sees(child, "/mnt/slave/p"));
  CHECK("the child does not see a private mount", !sees(child, "/mnt/private/p"));
  CHECK("the parent sees a mount of its peer", sees(getpid(), "/mnt/shared/c"));
  CHECK("the parent does not see a mount of its slave", !sees(getpid(), "/mnt/slave/c"));
  char path[64], text[8] = "";
  for (int i = 0; i < 64; i++) {
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", third, i);
    char link[128] = "";
    if (readlink(path, link, sizeof(link) - 1) > 0 && strcmp(link, "/mnt/private/own") == 0) {
      int fd = open(path, O_RDONLY);
      if (read(fd, text, 3) != 3) check_line("the file of the other namespace cannot be read\n");
      close(fd);
    }
  }
  CHECK_STRING("the file of another namespace", "own", text);
  for (int i = 0; i < 2; i++) kill(i ? third : child, SIGKILL), waitpid(i ? third : child, NULL, 0);
  return check_finish();
}
