/*
 * A random sequence of open, create, link, rename, unlink, truncate, write, map, mkdir, rmdir, chdir and the like by
 * several processes, on names that are few, so that they collide. argv: the seed, how many processes, how many steps,
 * and two directories (of two subvolumes, perhaps). Compared are, over the tree: which descriptors, mappings and
 * working directories are the same file, what each is and holds, and every name below the directories; then each
 * writes, and the same files have to be the same still.
 */
#include "tree.h"
#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#define PAGE 4096
#define MAPPED (3 * PAGE)
#define LARGEST_PROCESSES 8
#define HANDLES 20
#define NAMES 400
#define FAR ((5L << 30) + 4321)
/** Where mappings are: apart from each other, so that none is joined. */
#define MAPPINGS 0x200000000000UL

enum kind { NONE, DESCRIPTOR, MAPPING, DIRECTORY };
struct handle {
  enum kind kind;
  int fd, flags;
  bool shared;
  unsigned long address;
  struct stat stat;
  off_t position;
  uint64_t content, memory;
  char link[300], xattr[16];
  bool alive, written;
};
struct name {
  char path[600];
  struct stat stat;
  uint64_t content;
};
struct shared {
  atomic_int step, phase, done;
  int processes;
  struct handle handles[LARGEST_PROCESSES][HANDLES];
};
static struct shared *shared;
static struct handle mine[HANDLES];
static struct name names[NAMES], names_now[NAMES];
static int me, steps;
static uint64_t seed;
static char places[2][2048], path[4300], other[4300];

static uint64_t mix(uint64_t x) {
  x ^= x >> 33, x *= 0xff51afd7ed558ccdu, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53u;
  return x ^ x >> 33;
}
static uint64_t state;
static unsigned pick(unsigned below) {
  state = mix(state + 0x9e3779b97f4a7c15u);
  return (unsigned)(state >> 20) % below;
}

static const char *const NAME[] = {"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a", "a (deleted)", "b\xff\n"};
static const char *any_name(char *to) {
  snprintf(to, sizeof(path), "%s/%s", places[pick(4) == 0], NAME[pick(sizeof(NAME) / sizeof(*NAME))]);
  return to;
}
static struct handle *unused(void) {
  for (int i = 0; i < HANDLES; i++)
    if (mine[i].kind == NONE) return &mine[i];
  return NULL;
}
static struct handle *any_handle(void) {
  struct handle *handle = &mine[pick(HANDLES)];
  for (int i = 0; i < HANDLES && handle->kind == NONE; i++)
    if (++handle == mine + HANDLES) handle = mine;
  return handle;
}
static void keep(int fd) {
  struct handle *handle = unused();
  if (fd < 0) return;
  if (handle) *handle = (struct handle){.kind = DESCRIPTOR, .fd = fd};
  else close(fd);
}
static void where(const struct handle *handle, char *to) {
  if (handle->kind == DESCRIPTOR) sprintf(to, "/proc/self/fd/%d", handle->fd);
  else if (handle->kind == DIRECTORY) strcpy(to, "/proc/self/cwd");
  else sprintf(to, "/proc/self/map_files/%lx-%lx", handle->address, handle->address + MAPPED);
}
static bool is_open(const struct handle *handle) {
  return handle->kind == DESCRIPTOR && !(fcntl(handle->fd, F_GETFL) & O_PATH);
}
static bool is_regular(const struct handle *handle) {
  struct stat now;
  return handle->kind == DESCRIPTOR && fstat(handle->fd, &now) == 0 && S_ISREG(now.st_mode);
}

static void map(struct handle *of) {
  struct handle *handle = unused();
  if (!handle || !is_regular(of) || !is_open(of)) return;
  int mode = fcntl(of->fd, F_GETFL) & O_ACCMODE;
  if (mode == O_WRONLY) return;
  bool is_shared = pick(2);
  int prot = PROT_READ | (mode == O_RDWR || !is_shared ? PROT_WRITE : 0);
  unsigned long address = MAPPINGS + (unsigned long)(handle - mine) * (1UL << 24);
  void *at = mmap((void *)address, MAPPED, prot, (is_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED_NOREPLACE, of->fd, 0);
  if (at == MAP_FAILED) return;
  *handle = (struct handle){.kind = MAPPING, .address = address, .shared = is_shared};
  struct stat now;
  MUST(fstat(of->fd, &now));
  if (!is_shared && now.st_size > PAGE && pick(2)) ((char *)at)[PAGE + 7] = 'p';
}

static void write_to(struct handle *to) {
  static char bytes[9 * PAGE];
  if (!is_regular(to) || !is_open(to) || (fcntl(to->fd, F_GETFL) & O_ACCMODE) == O_RDONLY) return;
  check_fill(bytes, sizeof(bytes), mix(state));
  off_t offset = pick(12) == 0 ? FAR : pick(3) == 0 ? pick(40) * PAGE : pick(3 * PAGE);
  if (pwrite(to->fd, bytes, 1 + pick(sizeof(bytes) - 1), offset) < 0) check_die("write: %s", strerror(errno));
}

static void change_attributes(struct handle *of) {
  char at[64];
  if (of->kind == NONE) return;
  where(of, at);
  struct stat now;
  MUST(stat(at, &now));
  if (S_ISLNK(now.st_mode)) return;
  struct timespec times[2] = {{1e9 + pick(1000), pick(1000000000)}, {1e9 + pick(1000), pick(1000000000)}};
  char value[16];
  switch (pick(4)) {
  case 0: MUST(chmod(at, S_ISDIR(now.st_mode) ? 0700 + pick(64) : 0400 + pick(01000))); break;
  case 1: MUST(chown(at, pick(5) * 1000, pick(5) * 1000)); break;
  case 2: MUST(utimensat(AT_FDCWD, at, times, 0)); break;
  default:
    if (!S_ISREG(now.st_mode) && !S_ISDIR(now.st_mode)) break;
    snprintf(value, sizeof(value), "%u", pick(1000));
    if (setxattr(at, "user.ckpt", value, strlen(value), 0) != 0 && errno != EOPNOTSUPP) check_die("setxattr: %s", strerror(errno));
  }
}

static void let_go(struct handle *handle) {
  if (handle->kind == DESCRIPTOR) MUST(close(handle->fd));
  else if (handle->kind == MAPPING) MUST(munmap((void *)handle->address, MAPPED));
  else return;
  handle->kind = NONE;
}

/** One step; what the names of the moment do not allow is left out. */
static void act(void) {
  static const int FLAGS[] = {O_RDWR, O_RDWR, O_RDONLY, O_WRONLY | O_APPEND, O_RDWR | O_APPEND, O_PATH, O_RDONLY | O_NOFOLLOW};
  struct handle *handle = any_handle();
  struct stat now;
  int fd;
  switch (pick(20)) {
  case 0: case 1: case 2: case 3:
    any_name(path);
    if (lstat(path, &now) == 0 && !S_ISREG(now.st_mode)) {
      keep(open(path, S_ISFIFO(now.st_mode) && pick(2) ? O_RDWR | O_NONBLOCK : O_PATH | O_NOFOLLOW));
      break;
    }
    fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0) break;
    keep(fd);
    if (pick(2)) keep(open(path, FLAGS[pick(sizeof(FLAGS) / sizeof(*FLAGS))]));
    break;
  case 4: case 5: link(any_name(path), any_name(other)); break;
  case 6: case 7: rename(any_name(path), any_name(other)); break;
  case 8: case 9: case 10: unlink(any_name(path)); break;
  case 11: case 12: write_to(handle); break;
  case 13: map(handle); break;
  case 14:
    if (is_regular(handle) && is_open(handle) && (fcntl(handle->fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
      MUST(ftruncate(handle->fd, pick(5) * 3000));
    break;
  case 15: if (pick(3) == 0) let_go(handle); else if (is_open(handle)) lseek(handle->fd, pick(9000), SEEK_SET); break;
  case 16:
    any_name(path);
    if (pick(3) == 0) rmdir(path);
    else mkdir(path, 0755), keep(open(path, (pick(2) ? O_RDONLY : O_PATH) | O_DIRECTORY));
    break;
  case 17:
    if (chdir(any_name(path)) != 0) break;
    for (int i = 0; i < HANDLES; i++)
      if (mine[i].kind == DIRECTORY) mine[i].kind = NONE;
    struct handle *cwd = unused();
    if (cwd) cwd->kind = DIRECTORY;
    else MUST(chdir("/"));
    rmdir(path);
    break;
  case 18:
    any_name(path);
    switch (pick(5)) {
    case 0: mkfifo(path, 0600); break;
    case 1: if (symlink("to/nowhere", path) == 0) keep(open(path, O_PATH | O_NOFOLLOW)); break;
    case 2: mknod(path, S_IFCHR | 0600, makedev(1, 3)); break;
    case 3: keep(open(places[0], O_TMPFILE | O_RDWR, 0600)); break;
    default:
      if (handle->kind != DESCRIPTOR) break;
      if (pick(2)) {
        fd = dup(handle->fd);
        keep(fd);
      } else {
        sprintf(other, "/proc/self/fd/%d", handle->fd);
        linkat(AT_FDCWD, other, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
      }
    }
    break;
  default: change_attributes(handle);
  }
}

/** The same for all files that hold the same bytes, wherever their holes are. */
static uint64_t content_of(const char *at) {
  static uint64_t words[16 * PAGE / 8];
  int fd = open(at, O_RDONLY | O_CLOEXEC | O_NOATIME);
  if (fd < 0) return (uint64_t)-errno;
  uint64_t sum = 0;
  off_t end = lseek(fd, 0, SEEK_END);
  for (off_t from = 0; from < end;) {
    off_t data = lseek(fd, from, SEEK_DATA);
    if (data < 0) break;
    data &= ~7;
    memset(words, 0, sizeof(words));
    ssize_t got = pread(fd, words, sizeof(words), data);
    if (got <= 0) break;
    for (int i = 0; i < (got + 7) / 8; i++)
      if (words[i]) sum += mix(words[i] ^ mix((uint64_t)data + 8 * (uint64_t)i));
    from = data + got;
  }
  close(fd);
  return sum + (uint64_t)end;
}
/** What a mapping shows, as far as it shows anything. */
static uint64_t memory_of(unsigned long address) {
  uint64_t sum = 0, words[PAGE / 8];
  for (int page = 0; page < MAPPED / PAGE; page++) {
    struct iovec to = {words, PAGE}, from = {(void *)(address + (unsigned long)page * PAGE), PAGE};
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != PAGE) sum = mix(sum + 1);
    else
      for (int i = 0; i < PAGE / 8; i++) sum = mix(sum ^ words[i]);
  }
  return sum;
}

static void look(struct handle *handle) {
  char at[64];
  if (handle->kind == NONE) return;
  where(handle, at);
  memset(handle->link, 0, sizeof(handle->link));
  MUST(readlink(at, handle->link, sizeof(handle->link) - 1));
  struct stat there;
  if (handle->kind == DESCRIPTOR) {
    handle->flags = fcntl(handle->fd, F_GETFL);
    handle->position = is_open(handle) ? lseek(handle->fd, 0, SEEK_CUR) : 0;
    MUST(fstat(handle->fd, &handle->stat));
  } else MUST(stat(at, &handle->stat));
  handle->alive = lstat(handle->link, &there) == 0 && there.st_ino == handle->stat.st_ino && there.st_dev == handle->stat.st_dev;
  if (S_ISREG(handle->stat.st_mode)) handle->content = content_of(at);
  if (handle->kind == MAPPING) handle->memory = memory_of(handle->address);
  memset(handle->xattr, 0, sizeof(handle->xattr));
  if (S_ISREG(handle->stat.st_mode) || S_ISDIR(handle->stat.st_mode)) getxattr(at, "user.ckpt", handle->xattr, 15);
}
static void look_at_all(void) {
  for (int i = 0; i < HANDLES; i++) look(&mine[i]);
  memcpy(shared->handles[me], mine, sizeof(mine));
}

/** Names that a dump made do not count, nor as links. */
static bool is_remap(const char *name) { return strncmp(name, "link_remap.", 11) == 0; }
static int list(const char *directory, struct name *to, int count) {
  DIR *open_directory = opendir(directory);
  if (!open_directory) check_die("opendir %s: %s", directory, strerror(errno));
  for (struct dirent *entry; (entry = readdir(open_directory));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (count == NAMES) check_die("too many names");
    struct name *name = &to[count++];
    memset(name, 0, sizeof(*name));
    snprintf(name->path, sizeof(name->path), "%.300s/%s", directory, entry->d_name);
    MUST(lstat(name->path, &name->stat));
    if (S_ISREG(name->stat.st_mode)) name->content = content_of(name->path);
    if (S_ISDIR(name->stat.st_mode)) count = list(name->path, to, count);
  }
  closedir(open_directory);
  return count;
}
static int by_path(const void *a, const void *b) { return strcmp(((const struct name *)a)->path, ((const struct name *)b)->path); }
static int list_all(struct name *to) {
  int count = 0, kept = 0;
  for (int i = 0; i < 2; i++) count = list(places[i], to, count);
  for (int i = 0; i < count; i++) {
    if (!is_remap(strrchr(to[i].path, '/') + 1)) continue;
    for (int j = 0; j < count; j++)
      if (to[j].stat.st_ino == to[i].stat.st_ino && to[j].stat.st_dev == to[i].stat.st_dev && j != i) to[j].stat.st_nlink--;
  }
  for (int i = 0; i < count; i++)
    if (!is_remap(strrchr(to[i].path, '/') + 1)) to[kept++] = to[i];
  qsort(to, (size_t)kept, sizeof(*to), by_path);
  return kept;
}

static void compare_names(int before, int now) {
  for (int i = 0, j = 0; i < before || j < now;) {
    struct name *a = &names[i], *b = &names_now[j];
    int order = i == before ? 1 : j == now ? -1 : strcmp(a->path, b->path);
    if (order < 0) check_line("%s is gone\n", a->path), i++;
    if (order > 0) check_line("%s is new\n", b->path), j++;
    if (order != 0) continue;
    i++, j++;
    CHECK_EQ("%s: inode", a->stat.st_ino, b->stat.st_ino, a->path);
    CHECK_EQ("%s: device", a->stat.st_dev, b->stat.st_dev, a->path);
    CHECK_EQ("%s: mode", a->stat.st_mode, b->stat.st_mode, a->path);
    CHECK_EQ("%s: owner", a->stat.st_uid, b->stat.st_uid, a->path);
    CHECK_EQ("%s: content", a->content, b->content, a->path);
    if (S_ISDIR(a->stat.st_mode)) continue;
    CHECK_EQ("%s: links", a->stat.st_nlink, b->stat.st_nlink, a->path);
    CHECK_EQ("%s: size", a->stat.st_size, b->stat.st_size, a->path);
    CHECK_EQ("%s: modified", a->stat.st_mtim.tv_sec, b->stat.st_mtim.tv_sec, a->path);
    CHECK_EQ("%s: modified, ns", a->stat.st_mtim.tv_nsec, b->stat.st_mtim.tv_nsec, a->path);
  }
}

static void compare(int process, int i, const struct handle *a, const struct handle *b) {
  char what[400];
  const struct stat *x = &a->stat, *y = &b->stat;
  snprintf(what, sizeof(what), "process %d, %s %d (%s)", process,
           a->kind == MAPPING ? "mapping" : a->kind == DIRECTORY ? "directory" : "descriptor", a->kind == DESCRIPTOR ? a->fd : i, a->link);
  CHECK_EQ("%s: mode", x->st_mode, y->st_mode, what);
  CHECK_EQ("%s: owner", x->st_uid, y->st_uid, what);
  CHECK_EQ("%s: group", x->st_gid, y->st_gid, what);
  CHECK_EQ("%s: device", x->st_dev, y->st_dev, what);
  /* a file that got its first name later is opened by it */
  int kept = x->st_nlink > 0 ? ~O_TMPFILE : ~0;
  CHECK_EQ("%s: flags", a->flags & kept, b->flags & kept, what);
  CHECK_EQ("%s: position", a->position, b->position, what);
  CHECK_EQ("%s: content", a->content, b->content, what);
  CHECK_EQ("%s: memory", a->memory, b->memory, what);
  CHECK_STRING("%s: attribute", a->xattr, b->xattr, what);
  CHECK_EQ("%s: its path leads to it", a->alive, b->alive && strcmp(a->link, b->link) == 0, what);
  if (S_ISDIR(x->st_mode)) {
    if (a->alive) CHECK_EQ("%s: inode", x->st_ino, y->st_ino, what);
    return;
  }
  CHECK_EQ("%s: size", x->st_size, y->st_size, what);
  CHECK_EQ("%s: device number", x->st_rdev, y->st_rdev, what);
  if (x->st_nlink > 0) {
    CHECK_EQ("%s: inode", x->st_ino, y->st_ino, what);
    CHECK("%s: links %ld and %ld", y->st_nlink >= x->st_nlink, what, (long)x->st_nlink, (long)y->st_nlink);
  } else CHECK_EQ("%s: links", 0, y->st_nlink, what);
  if (!S_ISFIFO(x->st_mode)) {
    CHECK_EQ("%s: modified", x->st_mtim.tv_sec, y->st_mtim.tv_sec, what);
    CHECK_EQ("%s: modified, ns", x->st_mtim.tv_nsec, y->st_mtim.tv_nsec, what);
  }
  CHECK("%s: %ld blocks and %ld", y->st_blocks <= x->st_blocks + 128, what, (long)x->st_blocks, (long)y->st_blocks);
}
static bool same(const struct handle *a, const struct handle *b) {
  return a->stat.st_ino == b->stat.st_ino && a->stat.st_dev == b->stat.st_dev;
}
static void compare_identities(struct handle *before, struct handle *now) {
  for (int i = 0; i < LARGEST_PROCESSES * HANDLES; i++)
    for (int j = 0; j < i; j++)
      if (before[i].kind && before[j].kind && same(&before[i], &before[j]) != same(&now[i], &now[j]))
        check_line("%s of process %d and %s of process %d: %s before\n", before[i].link, i / HANDLES, before[j].link,
                   j / HANDLES, same(&before[i], &before[j]) ? "one file" : "two files");
}

/** Each changes what it can in its own way. */
static void leave_traces(void) {
  for (int i = 0; i < HANDLES; i++) {
    struct handle *handle = &mine[i];
    uint64_t token = mix((uint64_t)me * 1000 + (uint64_t)i + 1);
    if (handle->kind == MAPPING && handle->shared && handle->stat.st_size >= 8 * (i + 1) && handle->written) {
      ((volatile uint64_t *)handle->address)[i] ^= token;
    } else if (is_regular(handle) && is_open(handle) && (handle->flags & O_ACCMODE) != O_RDONLY) {
      if (pwrite(handle->fd, &token, sizeof(token), 8 * me + 100 * i) != sizeof(token)) check_line("cannot write %s: %s\n", handle->link, strerror(errno));
    }
  }
}
static void compare_traces(struct handle *before, struct handle *now, int names_count) {
  for (int i = 0; i < LARGEST_PROCESSES * HANDLES; i++) {
    if (!now[i].kind || !S_ISREG(now[i].stat.st_mode)) continue;
    for (int j = 0; j < LARGEST_PROCESSES * HANDLES; j++)
      if (now[j].kind && same(&before[i], &before[j]) && now[i].content != now[j].content)
        check_line("%s of process %d does not hold what was written to %s of process %d\n", now[i].link, i / HANDLES,
                   now[j].link, j / HANDLES);
    for (int j = 0; j < names_count; j++)
      if (names_now[j].stat.st_ino == now[i].stat.st_ino && names_now[j].stat.st_dev == now[i].stat.st_dev)
        CHECK_EQ("%s holds what %s does", now[i].content, names_now[j].content, names_now[j].path, now[i].link);
  }
}

/** Waits for all processes, `phase` times. */
static void meet(int phase) {
  double end = check_seconds() + TREE_PATIENCE;
  atomic_fetch_add(&shared->done, 1);
  while (atomic_load(&shared->done) < phase * shared->processes) {
    check_sleep_ms(1);
    if (check_seconds() > end) check_die("a process does not come to phase %d", phase);
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc != 7) check_die("not called so");
  seed = strtoull(argv[2], NULL, 10);
  steps = atoi(argv[4]);
  for (int i = 0; i < 2; i++) snprintf(places[i], sizeof(places[i]), "%s", argv[5 + i]);
  shared = (void *)MUST(mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  shared->processes = atoi(argv[3]);
  umask(022);
  pid_t children[LARGEST_PROCESSES] = {0};
  /* the root begins; each process forks the next one, which has all that it has */
  int born = 0, every = steps / (shared->processes + 1);
  for (int step = 0; step < steps; step++) {
    if (born < shared->processes - 1 && step == every * (born + 1)) {
      state = mix(seed * 1000003 + (uint64_t)step);
      int parent = (int)pick((unsigned)born + 1);
      born++;
      if (me == parent) {
        children[born] = tree_fork("process-%d", born);
        if (children[born] == 0) {
          memset(children, 0, sizeof(children));
          me = born;
        }
      }
    }
    while (atomic_load(&shared->step) < step) {
      struct timespec pause = {0, 50000};
      nanosleep(&pause, NULL);
      if (tree_exists("result", "")) _exit(3);
    }
    state = mix(seed * 1000003 + (uint64_t)step) ^ 77;
    if ((int)pick((unsigned)born + 1) != me) continue;
    act();
    atomic_store(&shared->step, step + 1);
  }
  meet(1);
  look_at_all();
  for (int i = 0; i < HANDLES; i++) {
    char flags[64];
    if (mine[i].kind != MAPPING) continue;
    /* whether it can be written to */
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[600];
    sprintf(flags, "%lx-", mine[i].address);
    while (maps && fgets(line, sizeof(line), maps))
      if (strncmp(line, flags, strlen(flags)) == 0) mine[i].written = strstr(line, " rw") != NULL;
    if (maps) fclose(maps);
  }
  meet(2);
  static struct handle before[LARGEST_PROCESSES][HANDLES], now[LARGEST_PROCESSES][HANDLES];
  int count = 0;
  if (me == 0) {
    memcpy(before, shared->handles, sizeof(before));
    count = list_all(names);
    check_ready();
  } else tree_wait_go();
  look_at_all();
  meet(3);
  if (me == 0) {
    memcpy(now, shared->handles, sizeof(now));
    for (int p = 0; p < shared->processes; p++)
      for (int i = 0; i < HANDLES; i++)
        if (before[p][i].kind) compare(p, i, &before[p][i], &now[p][i]);
    compare_identities(before[0], now[0]);
    compare_names(count, list_all(names_now));
  }
  meet(4);
  leave_traces();
  meet(5);
  look_at_all();
  meet(6);
  if (me == 0) compare_traces(before[0], shared->handles[0], list_all(names_now));
  for (int i = 1; i < LARGEST_PROCESSES; i++)
    if (children[i]) tree_wait(children[i], 0);
  if (me != 0) tree_report(check_used > 0);
  for (int i = 1; i < shared->processes; i++) tree_collect(check_name("process-%d", i));
  return check_finish();
}
