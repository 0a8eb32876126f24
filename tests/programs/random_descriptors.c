/*
 * random_descriptors WORK_DIRECTORY SEED STEPS: processes that make pipes, socket pairs, eventfds, memfds, regular files
 * and epolls at random, duplicate, close and renumber them, fill their queues, and fork. The root looks at all of them:
 * which descriptors are one open file (kcmp(2)), which open files are one object, and what is in each.
 */
#include "check.h"
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PROCESSES = 5, HELD = 48, LINES = PROCESSES * 64, LINE = 512, HIGHEST = 200 };
static uint64_t state;
static unsigned below(unsigned n) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (unsigned)((state >> 11) % n);
}
static struct shared {
  pid_t pids[PROCESSES];
  atomic_int count, settled[PROCESSES];
} *shared;
static int held[HELD], count;

static void hold(int fd) {
  if (fd < 0) return;
  if (count < HELD) held[count++] = fd;
  else close(fd);
}
static bool is_socket(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}
/** Another free number, as a program gives them by dup2(2). */
static int renumbered(int fd) {
  int wanted = 20 + (int)below(HIGHEST - 20);
  if (fd < 0 || fcntl(wanted, F_GETFD) >= 0) return fd;
  int moved = dup3(fd, wanted, below(2) ? O_CLOEXEC : 0);
  close(fd);
  return moved;
}

static void step(void) {
  char bytes[3000], path[4400];
  int pair[2], fd = count ? held[below((unsigned)count)] : -1;
  check_fill(bytes, sizeof(bytes), state);
  switch (below(14)) {
  case 0:
    if (pipe2(pair, below(2) ? O_NONBLOCK : O_CLOEXEC) == 0) hold(renumbered(pair[0])), hold(renumbered(pair[1]));
    break;
  case 1: {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    if (socketpair(AF_UNIX, types[below(3)] | (below(2) ? SOCK_CLOEXEC : 0), 0, pair) == 0) hold(pair[0]), hold(renumbered(pair[1]));
    break;
  }
  case 2: hold(renumbered(eventfd(below(100), below(2) ? EFD_SEMAPHORE | EFD_NONBLOCK : EFD_NONBLOCK))); break;
  case 3: {
    int memory = memfd_create("random", below(2) ? MFD_ALLOW_SEALING : 0);
    if (write(memory, bytes, below(sizeof(bytes))) < 0) check_die("write to a memfd: %s", strerror(errno));
    if (below(3) == 0) fcntl(memory, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE);
    hold(memory);
    break;
  }
  case 4:
    snprintf(path, sizeof(path), "%s/file-%u", check_dir, below(4));
    hold(renumbered(open(path, O_RDWR | O_CREAT | (below(2) ? O_APPEND : 0), 0644)));
    break;
  case 5: hold(epoll_create1(below(2) ? EPOLL_CLOEXEC : 0)); break;
  case 6:
  case 7:
    if (fd >= 0) hold(renumbered(dup(fd)));
    break;
  case 8: {
    /* unread bytes of a socket that is closed are an error for its peer */
    int unread = 0;
    if (fd < 0 || (is_socket(fd) && (ioctl(fd, FIONREAD, &unread) != 0 || unread > 0))) break;
    for (int i = 0; i < count; i++)
      if (held[i] == fd) held[i] = held[--count];
    close(fd);
    break;
  }
  case 9:
  case 10: {
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) break;
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    if (poll(&writable, 1, 0) == 1 && !(writable.revents & (POLLERR | POLLHUP)) && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
      if (write(fd, bytes, 1 + below(sizeof(bytes) - 1)) < 0) break;
    if (S_ISREG(st.st_mode)) lseek(fd, below(5000), SEEK_SET);
    break;
  }
  default: {
    int epoll = count ? held[below((unsigned)count)] : -1;
    struct epoll_event event = {below(2) ? EPOLLIN : EPOLLIN | EPOLLOUT, {.u64 = state & 0xffff}};
    if (epoll >= 0 && fd >= 0) epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
  }
}

/** Forks now and then; returns in each process when it has done all its steps. */
static void build(int steps) {
  for (int i = 0; i < steps; i++) {
    if (below(12) == 0 && atomic_load(&shared->count) < PROCESSES) {
      int number = atomic_fetch_add(&shared->count, 1);
      uint64_t seed = state + (uint64_t)number;
      fflush(NULL);
      pid_t pid = (pid_t)MUST(fork());
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        state = seed * 0x9e3779b97f4a7c15u + 1;
        build(steps - i - 1);
        atomic_store(&shared->settled[number], 1);
        for (;;) pause();
      }
      shared->pids[number] = pid;
      /* One after the other: what is in a queue does not depend on who is faster. */
      while (!atomic_load(&shared->settled[number])) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) check_die("process %d ends with %#x", number, status);
        check_sleep_ms(1);
      }
    }
    step();
  }
}

struct picture {
  char line[LINES][LINE];
  int lines;
};
/** Objects by device and inode, in the order in which they are met. */
static struct {
  dev_t device;
  ino_t inode;
} objects[LINES];
static int object_count;
static int object_of(const struct stat *st) {
  for (int i = 0; i < object_count; i++)
    if (objects[i].device == st->st_dev && objects[i].inode == st->st_ino) return i;
  objects[object_count].device = st->st_dev, objects[object_count].inode = st->st_ino;
  return object_count++;
}
static struct {
  pid_t pid;
  int fd;
} files[LINES];
static int file_count;
static int file_of(pid_t pid, int fd) {
  for (int i = 0; i < file_count; i++)
    if (syscall(SYS_kcmp, pid, files[i].pid, KCMP_FILE, fd, files[i].fd) == 0) return i;
  files[file_count].pid = pid, files[file_count].fd = fd;
  return file_count++;
}
static uint32_t hash(uint32_t h, const char *bytes, ssize_t n) {
  for (ssize_t i = 0; i < n; i++) h = (h ^ (unsigned char)bytes[i]) * 16777619u;
  return h;
}
static int compare(const void *a, const void *b) { return strcmp(a, b); }

/** What is in it, as words; nothing is taken out. */
static void content(int fd, const struct stat *st, const char *link, char *text, size_t size) {
  static char bytes[1 << 20];
  char path[64], line[256];
  int unread = -1;
  ssize_t n = -1;
  struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
  poll(&p, 1, 0);
  if (S_ISFIFO(st->st_mode)) {
    int copy[2], access = fcntl(fd, F_GETFL) & O_ACCMODE;
    ioctl(fd, FIONREAD, &unread);
    MUST(pipe2(copy, O_NONBLOCK));
    MUST(fcntl(copy[0], F_SETPIPE_SZ, 1 << 20));
    if (access != O_WRONLY) {
      tee(fd, copy[1], sizeof(bytes), SPLICE_F_NONBLOCK);
      n = read(copy[0], bytes, sizeof(bytes));
    }
    close(copy[0]), close(copy[1]);
  } else if (S_ISSOCK(st->st_mode)) {
    ioctl(fd, FIONREAD, &unread);
    n = recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
  } else if (S_ISREG(st->st_mode)) {
    n = pread(fd, bytes, sizeof(bytes), 0);
    unread = fcntl(fd, F_GET_SEALS);
  }
  snprintf(text, size, "events %#x, %d unread or seals, %zd bytes %#x", p.revents, unread, n, hash(1, bytes, n));
  if (strncmp(link, "anon_inode:", 11) != 0) return;
  char found[64][96];
  int lines = 0;
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
  FILE *info = fopen(path, "re");
  while (info && fgets(line, sizeof(line), info)) {
    bool watched = strncmp(line, "tfd:", 4) == 0;
    if (lines < 64 && (watched || strncmp(line, "eventfd-count", 13) == 0 || strncmp(line, "eventfd-sem", 11) == 0))
      snprintf(found[lines++], sizeof(found[0]), "%.*s", (int)(watched ? strstr(line, " pos:") - line : (long)strlen(line) - 1), line);
  }
  if (info) fclose(info);
  qsort(found, (size_t)lines, sizeof(found[0]), compare);
  for (int i = 0; i < lines; i++) snprintf(text + strlen(text), size - strlen(text), "; %s", found[i]);
  if (strstr(link, "eventpoll")) {
    /* all is level-triggered: asking changes nothing */
    struct epoll_event events[64];
    uint64_t sum = 0;
    int told = epoll_wait(fd, events, 64, 0);
    for (int i = 0; i < told; i++) sum += (uint64_t)(events[i].events + 1) * (events[i].data.u64 + 7);
    snprintf(text + strlen(text), size - strlen(text), "; %d ready %#llx", told, (unsigned long long)sum);
  }
}

static void look(struct picture *picture) {
  object_count = file_count = picture->lines = 0;
  for (int i = 0; i < atomic_load(&shared->count); i++) {
    /* above all that is looked at */
    int opened = (int)MUST(syscall(SYS_pidfd_open, shared->pids[i], 0)), pidfd = (int)MUST(fcntl(opened, F_DUPFD_CLOEXEC, HIGHEST));
    close(opened);
    for (int fd = 3; fd < HIGHEST && picture->lines < LINES; fd++) {
      char path[64], link[128] = {0}, text[LINE - 160], cloexec[32] = "";
      int own = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
      if (own < 0) continue;
      struct stat st;
      MUST(fstat(own, &st));
      snprintf(path, sizeof(path), "/proc/%d/fd/%d", shared->pids[i], fd);
      MUST(readlink(path, link, sizeof(link) - 1));
      snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", shared->pids[i], fd);
      snprintf(cloexec, sizeof(cloexec), "%s", check_proc(path, "flags:"));
      content(own, &st, link, text, sizeof(text));
      bool named = strncmp(link, "anon_inode:", 11) != 0;
      snprintf(picture->line[picture->lines++], LINE, "%d/%d: file %d, object %d, %s, at %lld, %s", i, fd, file_of(shared->pids[i], fd),
               named ? object_of(&st) : -1, cloexec, (long long)lseek(own, 0, SEEK_CUR), text);
      close(own);
    }
    close(pidfd);
  }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc != 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
  shared = (struct shared *)MUST(mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  struct picture *before = (struct picture *)MUST(mmap(NULL, 2 * sizeof(*before), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  shared->pids[0] = getpid();
  atomic_store(&shared->count, 1);
  build(atoi(argv[3]));
  look(before);
  if (before->lines == 0) check_die("nothing is open");
  check_ready();
  look(before + 1);
  CHECK_EQ("descriptors", before->lines, before[1].lines);
  /* what follows the first is often only shifted */
  for (int i = 0, told = 0; i < before->lines && told < 5; i++)
    if (strcmp(before->line[i], before[1].line[i]) != 0) told++, check_string("descriptor", before->line[i], before[1].line[i]);
  for (int i = 0; i < atomic_load(&shared->count); i++)
    if (shared->pids[i] != getpid()) kill(shared->pids[i], SIGKILL);
  while (wait(NULL) > 0) continue;
  return check_finish();
}
