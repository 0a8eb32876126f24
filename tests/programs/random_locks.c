/*
 * random_locks WORK_DIRECTORY SEED: several processes, some of which share open files by fork, take and give up locks
 * of all kinds at random. What /proc tells of each descriptor, and what a stranger is told of each byte, is compared.
 */
#include "check.h"
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { LINES = 1024, PROCESSES = 5, FILES = 3, OPENED = 4, STEPS = 60, BYTES = 48 };
static uint64_t state;
static unsigned below(unsigned n) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (unsigned)((state >> 11) % n);
}
static char path[4400];
static int file(unsigned number) {
  snprintf(path, sizeof(path), "%s/file%u", check_dir, number);
  return (int)MUST(open(path, O_RDWR | O_CREAT, 0644));
}
static int fds[PROCESSES * OPENED], count;
static pid_t pids[PROCESSES];

/** One step: of the process whose number it is. */
static void step(void) {
  int fd = fds[below((unsigned)count)];
  unsigned kind = below(3), type = below(3), start = below(BYTES), length = below(BYTES - start);
  static const short TYPES[] = {F_RDLCK, F_WRLCK, F_UNLCK};
  static const int FLOCKS[] = {LOCK_SH, LOCK_EX, LOCK_UN};
  if (kind == 2) {
    flock(fd, FLOCKS[type] | LOCK_NB);
    return;
  }
  struct flock range = {.l_type = TYPES[type], .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  fcntl(fd, kind == 0 ? F_SETLK : F_OFD_SETLK, &range);
}

struct picture {
  char line[LINES][128];
  short type[FILES][BYTES];
  pid_t pid[FILES][BYTES];
};
static int compare(const void *a, const void *b) { return strcmp(a, b); }
static void look(struct picture *picture) {
  size_t used = 0;
  for (int i = 0; i < PROCESSES; i++)
    for (int fd = 0; fd < 256; fd++) {
      char name[64], line[256];
      snprintf(name, sizeof(name), "/proc/%d/fdinfo/%d", pids[i], fd);
      FILE *info = fopen(name, "re");
      if (!info) continue;
      while (fgets(line, sizeof(line), info))
        if (strncmp(line, "lock:", 5) == 0 && used < LINES)
          snprintf(picture->line[used++], sizeof(picture->line[0]), "%d/%d%s", i, fd, strchr(line, ' '));
      fclose(info);
    }
  /* nothing promises an order of locks */
  qsort(picture->line, used, sizeof(picture->line[0]), compare);
  pid_t child = (pid_t)MUST(fork());
  if (child == 0) {
    for (unsigned i = 0; i < FILES; i++) {
      int fd = file(i);
      for (int byte = 0; byte < BYTES; byte++) {
        struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
        if (fcntl(fd, F_GETLK, &range) != 0) _exit(1);
        /* one of many may be named where they only read */
        picture->type[i][byte] = range.l_type, picture->pid[i][byte] = range.l_type == F_WRLCK ? range.l_pid : 0;
      }
    }
    _exit(0);
  }
  int status;
  MUST(waitpid(child, &status, 0));
  if (status != 0) check_die("the child that asks ends with %#x", status);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc != 3) return 2;
  state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
  struct picture *before = (struct picture *)MUST(mmap(NULL, 2 * sizeof(*before), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  int turn[PROCESSES][2], done[2];
  MUST(pipe2(done, O_CLOEXEC));
  for (int i = 0; i < PROCESSES; i++) MUST(pipe2(turn[i], O_CLOEXEC));
  for (int i = 0; i < OPENED; i++) fds[count++] = file(below(FILES));
  pids[0] = getpid();
  for (int i = 1; i < PROCESSES; i++) {
    uint64_t seed = state + (uint64_t)i;
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
      state = seed * 0x9e3779b97f4a7c15u + 1;
      for (int j = 0; j < OPENED; j++) fds[count++] = file(below(FILES));
      char byte;
      while (read(turn[i][0], &byte, 1) == 1) {
        step();
        if (write(done[1], &byte, 1) != 1) _exit(1);
      }
      _exit(1);
    }
    pids[i] = pid;
  }
  for (int i = 0; i < STEPS; i++) {
    unsigned who = below(PROCESSES);
    char byte = 0;
    if (who == 0) step();
    else if (write(turn[who][1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1) check_die("process %u has ended", who);
  }
  look(before);
  if (before->line[0][0] == 0) check_die("nothing is locked");
  check_ready();
  look(before + 1);
  for (int i = 0; i < LINES; i++) CHECK_STRING("lock %d in /proc", before->line[i], before[1].line[i], i);
  CHECK_BYTES("types", before->type, before[1].type, sizeof(before->type));
  CHECK_BYTES("owners", before->pid, before[1].pid, sizeof(before->pid));
  for (int i = 1; i < PROCESSES; i++) kill(pids[i], SIGKILL);
  while (wait(NULL) > 0) continue;
  return check_finish();
}
