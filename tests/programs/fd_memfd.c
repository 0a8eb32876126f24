/*
 * memfds: content with holes, names, sizes, modes and seals; open in several ways, mapped shared and private, only
 * mapped, and shared with a child. "plain": only what CRIU restores, too.
 */
#include "tree.h"
#include <sys/mman.h>
#include <sys/stat.h>
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#define PAGE 4096
#define MIB (1 << 20)

static int make(const char *name, unsigned flags, off_t size) {
  int fd = (int)MUST(memfd_create(name, flags));
  MUST(ftruncate(fd, size));
  return fd;
}
static void fill(int fd, off_t at, size_t length, uint64_t seed) {
  char *bytes = malloc(length);
  check_fill(bytes, length, seed);
  MUST(pwrite(fd, bytes, length, at));
  free(bytes);
}
static void filled(const char *name, int fd, off_t at, size_t length, uint64_t seed) {
  char *bytes = calloc(1, length);
  CHECK_EQ("read of %s", (long long)length, pread(fd, bytes, length, at), name);
  check_filled(name, bytes, length, seed);
  free(bytes);
}
static char *map(int fd, size_t length, int prot, int flags) {
  return (char *)MUST(mmap(NULL, length, prot, flags, fd, 0));
}
static char *link_of(int fd, char *text) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  text[MUST(readlink(path, text, 511))] = 0;
  return text;
}
static int reopen(int fd, int flags) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return (int)MUST(open(path, flags));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool plain = argc > 2;
  char text[512], before[512];
  /* 64 MiB with three pages in it, and an odd size */
  int large = make("a large one, with spaces", 0, 64 * MIB + 123);
  fill(large, 5 * PAGE, PAGE, 1);
  fill(large, 32 * MIB + 100, 2 * PAGE - 200, 2);
  fill(large, 64 * MIB, 123, 3);
  struct stat large_stat;
  MUST(fstat(large, &large_stat));
  MUST(lseek(large, 4711, SEEK_SET));
  int appending = reopen(large, O_WRONLY | O_APPEND | O_NONBLOCK);
  int reading = reopen(large, O_RDONLY | O_CLOEXEC);
  int empty = make("", MFD_ALLOW_SEALING | MFD_CLOEXEC, 0);

  int work = make("work", MFD_ALLOW_SEALING, 8 * PAGE);
  fill(work, 0, 8 * PAGE, 4);
  char *shared = map(work, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
  char *private = map(work, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  check_fill(private + PAGE, PAGE, 5);
  char *view = map(work, 8 * PAGE, PROT_READ, MAP_SHARED);

  int only = make("only mapped", 0, 4 * PAGE);
  fill(only, 0, 4 * PAGE, 6);
  char *alone = map(only, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
  char *alone_private = map(only, 4 * PAGE, PROT_READ, MAP_PRIVATE);
  close(only);

  /* sealed against writing, mapped before and after */
  int sealed = make("sealed", MFD_ALLOW_SEALING, 2 * PAGE);
  fill(sealed, 0, 2 * PAGE, 7);
  MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
  char *sealed_private = map(sealed, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  sealed_private[0] = 'x';
  int sealed_reading = reopen(sealed, O_RDONLY);
  char *sealed_view = map(sealed_reading, 2 * PAGE, PROT_READ, MAP_SHARED);
  /* sealed against new writers while one has it mapped */
  int future = make("future", MFD_ALLOW_SEALING, PAGE);
  char *writer = map(future, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
  MUST(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
  strcpy(writer, "written by the mapping");
  int noexec = memfd_create("noexec", MFD_NOEXEC_SEAL);
  int noexec_seals = noexec < 0 ? 0 : (int)MUST(fcntl(noexec, F_GET_SEALS));
  int other = make("other owner", 0, 10);
  MUST(fchown(other, 1000, 1001));
  MUST(fchmod(other, 0640));
  if (!plain) MUST(open("/proc/self/fd/3", O_PATH | O_CLOEXEC));

  pid_t child = tree_fork("child");
  if (child == 0) {
    int own = make("the child's", 0, PAGE);
    char *own_map = map(own, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    strcpy(own_map, "of the child");
    close(large), close(sealed);
    private[2 * PAGE] = 'c';
    tree_settled();
    CHECK_STRING("the child's own", "of the child", own_map);
    check_filled("shared in the child", shared, PAGE, 4);
    check_filled("private in the child", private + PAGE, PAGE, 5);
    CHECK_EQ("the child's change", 'c', private[2 * PAGE]);
    strcpy(shared + 7 * PAGE, "from the child");
    strcpy(alone + 3 * PAGE, "alone");
    CHECK_EQ("write by the child", 3, pwrite(work, "abc", 3, 6 * PAGE));
    tree_report(0);
  }
  tree_await("child");
  link_of(large, before);
  check_ready();
  struct stat st;
  CHECK_STRING("name", before, link_of(large, text));
  CHECK_STRING("no name", "/memfd: (deleted)", link_of(empty, text));
  MUST(fstat(large, &st));
  CHECK_EQ("size", 64 * MIB + 123, st.st_size);
  CHECK("holes: %ld blocks, were %ld", st.st_blocks <= large_stat.st_blocks, (long)st.st_blocks, (long)large_stat.st_blocks);
  CHECK_EQ("mode", (int)large_stat.st_mode, (int)st.st_mode);
  filled("first page", large, 5 * PAGE, PAGE, 1);
  filled("middle", large, 32 * MIB + 100, 2 * PAGE - 200, 2);
  filled("end", large, 64 * MIB, 123, 3);
  CHECK_EQ("position", 4711, lseek(large, 0, SEEK_CUR));
  CHECK_EQ("seals of one that takes none", F_SEAL_SEAL, fcntl(large, F_GET_SEALS));
  CHECK_EQ("append", 5, write(appending, "added", 5));
  CHECK_EQ("read what was appended", 5, pread(reading, text, 5, 64 * MIB + 123));
  CHECK_EQ("nothing can be written by the reader", -1, write(reading, "x", 1));
  CHECK_EQ("flags of the writer", O_WRONLY | O_APPEND | O_NONBLOCK, fcntl(appending, F_GETFL) & ~0100000);
  CHECK_EQ("close-on-exec", FD_CLOEXEC, fcntl(reading, F_GETFD));
  MUST(fstat(empty, &st));
  CHECK_EQ("size of the empty one", 0, st.st_size);
  CHECK_EQ("seals of the empty one", 0, fcntl(empty, F_GET_SEALS));

  tree_collect("child");
  tree_wait(child, 0);
  check_filled("shared", shared, 6 * PAGE, 4);
  CHECK_EQ("what the child has written", 0, memcmp(shared + 6 * PAGE, "abc", 3));
  CHECK_STRING("what the child has stored", "from the child", view + 7 * PAGE);
  check_filled("private", private + PAGE, PAGE, 5);
  CHECK("private page of the child's", private[2 * PAGE] == shared[2 * PAGE]);
  CHECK_STRING("what only is mapped", "alone", alone_private + 3 * PAGE);
  check_filled("what only is mapped", alone, 3 * PAGE, 6);

  CHECK_EQ("seals", F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fcntl(sealed, F_GET_SEALS));
  check_filled("sealed", sealed_view, 2 * PAGE, 7);
  CHECK_EQ("sealed, private", 'x', sealed_private[0]);
  CHECK_EQ("write to the sealed one", -1, pwrite(sealed, "x", 1, 0));
  CHECK_EQ("its error", EPERM, errno);
  CHECK_EQ("seals against the future", F_SEAL_FUTURE_WRITE, fcntl(future, F_GET_SEALS));
  CHECK_STRING("the old mapping", "written by the mapping", writer);
  strcpy(writer, "still");
  CHECK_EQ("read through the file", 5, pread(future, text, 5, 0));
  CHECK("what the old mapping has stored", memcmp(text, "still", 5) == 0);
  CHECK("no new mapping", mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, future, 0) == MAP_FAILED);
  if (noexec >= 0) CHECK_EQ("seals of one that is not executable", noexec_seals, fcntl(noexec, F_GET_SEALS));
  MUST(fstat(other, &st));
  CHECK_EQ("owner", 1000, st.st_uid);
  CHECK_EQ("group", 1001, st.st_gid);
  CHECK_EQ("permissions", 0100640, st.st_mode);
  return check_finish();
}
