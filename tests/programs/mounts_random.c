/*
 * A random history of mounts below /mnt in up to four mount namespaces, of a fixed seed: mounts, binds, moves, changes
 * of propagation and flags, unmounts. Before and after a restore every namespace shows the same files, and what is
 * mounted at any place appears where it did before.
 *
 * usage: mounts_random WORK SEED STEPS
 */
#include "check.h"
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SPACES 4
#define MOST_MOUNTS 60
#define TEXT (1 << 22)
#define DEEPEST 6

static pid_t spaces[SPACES];
static int count = 1;
static uint64_t state;

static unsigned below(unsigned limit) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (unsigned)(state >> 33) % limit;
}

static const char *random_path(char *path) {
  strcpy(path, "/mnt");
  for (unsigned depth = below(4); depth > 0; depth--) strcat(path, below(2) ? "/a" : "/b");
  return path;
}

static void enter(int space) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/ns/mnt", spaces[space]);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNS)) _exit(9);
  close(fd);
}

static void fill(const char *path) {
  char name[256];
  for (const char *const *sub = (const char *const[]){ "a", "b", "probe", NULL }; *sub; sub++) {
    snprintf(name, sizeof(name), "%s/%s", path, *sub);
    mkdir(name, 0700 + below(64));
  }
  snprintf(name, sizeof(name), "%s/f", path);
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0640);
  if (fd >= 0) dprintf(fd, "content %u\n", below(1000000)), close(fd);
}

/** One step, in the namespace of the caller; what the kernel refuses is not done. */
static void step(void) {
  static const unsigned long kinds[] = { MS_SHARED, MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE };
  static const unsigned long flags[] = { MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME };
  char from[256], to[256];
  random_path(from), random_path(to);
  switch (below(12)) {
  case 0: case 1: case 2:
    if (mount("random", to, "tmpfs", below(4) ? 0 : MS_NOSUID, below(2) ? "size=1m" : "mode=750") == 0) fill(to);
    break;
  case 3: case 4: mount(from, to, NULL, MS_BIND, NULL); break;
  case 5: mount(from, to, NULL, MS_BIND | (below(3) ? 0 : MS_REC), NULL); break;
  case 6: case 7: mount(NULL, to, NULL, kinds[below(5)] | (below(4) ? 0 : MS_REC), NULL); break;
  case 8: umount2(to, below(2) ? MNT_DETACH : 0); break;
  case 9: mount(from, to, NULL, MS_MOVE, NULL); break;
  case 10: mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | flags[below(5)], NULL); break;
  case 11:
    strcat(from, "/f"), strcat(to, "/f");
    if (below(2)) mount(from, to, NULL, MS_BIND, NULL);
    break;
  }
}

static int run(int space, void (*what)(void *), void *argument) {
  pid_t helper = fork();
  if (helper == 0) {
    enter(space);
    what(argument);
    _exit(0);
  }
  int status = -1;
  waitpid(helper, &status, 0);
  return status;
}

static void one_step(void *seed) {
  state = *(uint64_t *)seed;
  below(2);
  step();
}

static void new_space(int from) {
  int ready[2];
  char byte;
  MUST(pipe2(ready, O_CLOEXEC));
  spaces[count] = (pid_t)MUST(fork());
  if (spaces[count] == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    enter(from);
    MUST(unshare(CLONE_NEWNS));
    MUST(write(ready[1], "", 1));
    close(ready[0]), close(ready[1]);
    for (;;) pause();
  }
  close(ready[1]);
  if (read(ready[0], &byte, 1) != 1) check_die("a namespace was not made");
  close(ready[0]);
  count++;
}

static int mounts_in(int space, char lines[][256], int most, const char *source) {
  char path[64], line[4096];
  int found = 0;
  snprintf(path, sizeof(path), "/proc/%d/mountinfo", spaces[space]);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof(line), file)) {
    char point[256], *dash = strstr(line, " - ");
    if (sscanf(line, "%*d %*d %*s %*s %255s", point) != 1 || strncmp(point, "/mnt", 4) || !dash) continue;
    if (source && !strstr(dash, source)) continue;
    if (found < most) strcpy(lines[found], point);
    found++;
  }
  if (file) fclose(file);
  return found;
}

/** Where texts are put together, also by helpers. */
static struct shared {
  size_t used;
  char text[TEXT];
} *shared;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  va_list list;
  va_start(list, format);
  size_t room = TEXT - shared->used;
  int n = vsnprintf(shared->text + shared->used, room, format, list);
  va_end(list);
  if (n > 0 && (size_t)n < room) shared->used += (size_t)n;
}

static int compare(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void list(const char *path, int depth) {
  struct stat st;
  if (lstat(path, &st)) return;
  say("%s %o", path, st.st_mode);
  if (S_ISREG(st.st_mode)) {
    char content[64] = "";
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && read(fd, content, sizeof(content) - 1) >= 0) say(" %s", content);
    close(fd);
  }
  say("\n");
  if (!S_ISDIR(st.st_mode) || depth == DEEPEST) return;
  struct dirent **entries;
  int n = scandir(path, &entries, NULL, compare);
  for (int i = 0; i < n; i++) {
    char name[512];
    if (entries[i]->d_name[0] != '.') {
      snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
      list(name, depth + 1);
    }
    free(entries[i]);
  }
  if (n >= 0) free(entries);
}

static void list_all(void *argument) {
  (void)argument;
  list("/mnt", 0);
}

static void probe(void *point) {
  char path[300];
  snprintf(path, sizeof(path), "%s/probe", (char *)point);
  if (mount("probe-mark", path, "tmpfs", 0, "size=4k")) _exit(1);
}

static void unprobe(void *point) {
  char path[300];
  snprintf(path, sizeof(path), "%s/probe", (char *)point);
  if (umount2(path, 0)) _exit(1);
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/** Everything that can be told of all namespaces, as text. */
static void describe(void) {
  static char points[MOST_MOUNTS * 4][256], found[1024][256];
  shared->used = 0;
  for (int space = 0; space < count; space++) {
    say("namespace %d\n", space);
    run(space, list_all, NULL);
  }
  for (int space = 0; space < count; space++) {
    int n = mounts_in(space, points, MOST_MOUNTS * 4, NULL);
    if (n > MOST_MOUNTS * 4) n = MOST_MOUNTS * 4;
    for (int i = 0; i < n; i++) {
      if (run(space, probe, points[i]) != 0) continue;
      say("what is mounted in %d at %s appears", space, points[i]);
      for (int other = 0; other < count; other++) {
        int m = mounts_in(other, found, 1024, "probe-mark");
        if (m > 1024) m = 1024;
        qsort(found, (size_t)m, sizeof(found[0]), by_text);
        for (int j = 0; j < m; j++) say(" %d:%s", other, found[j]);
      }
      say("\n");
      if (run(space, unprobe, points[i]) != 0) say("and stays\n");
    }
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc < 4) check_die("usage: mounts_random WORK SEED STEPS");
  state = (uint64_t)atoi(argv[2]) * 0x9e3779b97f4a7c15u | 1;
  for (int i = 0; i < 8; i++) below(2);
  spaces[0] = getpid();
  MUST(mount("top", "/mnt", "tmpfs", 0, NULL));
  fill("/mnt");
  for (int steps = atoi(argv[3]); steps > 0; steps--) {
    static char ignored[1][256];
    int space = (int)below((unsigned)count);
    if (below(12) == 0 && count < SPACES) new_space(space);
    uint64_t seed = state | 1;
    if (mounts_in(space, ignored, 0, NULL) < MOST_MOUNTS) run(space, one_step, &seed);
    below(2);
  }
  shared = (struct shared *)MUST(mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  describe();
  size_t length = shared->used;
  char *before = malloc(length + 1);
  memcpy(before, shared->text, length);
  before[length] = 0;

  check_ready();

  describe();
  shared->text[shared->used] = 0;
  char *a = before, *b = shared->text;
  for (int told = 0; told < 12 && (*a || *b);) {
    size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");
    if (la != lb || memcmp(a, b, la)) {
      check_line("before: %.*s\nafter:  %.*s\n", (int)la, a, (int)lb, b);
      told++;
    }
    a += la + (a[la] == '\n'), b += lb + (b[lb] == '\n');
  }
  for (int i = 1; i < count; i++) kill(spaces[i], SIGKILL), waitpid(spaces[i], NULL, 0);
  return check_finish();
}
