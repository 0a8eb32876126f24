/*
 * A file "file" of the work directory that is open for reading, for appending, and mapped shared. argv[2]:
 *   kept       it keeps its name, as far as this program goes
 *   deleted    it is deleted while in use
 *   replaced   another file is renamed over it
 *   linked     deleted, and still there as "below/other"
 *   mapped     deleted, and only mapped
 *   below      deleted; it is "below/file"
 *   directory  an empty directory that is open is deleted
 *   special    a fifo with content is deleted, and a symbolic link
 *   device     the device null is deleted
 * Afterwards its content is what it was, and what is written goes to the same file by all three ways.
 */
#include "check.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SIZE 40000

static char path[4300], from[4300];

static const char *in_work(const char *name) {
  snprintf(path, sizeof(path), "%.4000s/%s", check_dir, name);
  return path;
}

static void put(const char *name, const char *text) {
  int fd = (int)MUST(open(in_work(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("cannot write");
  MUST(close(fd));
}

static void file(const char *kind) {
  bool only_mapped = strcmp(kind, "mapped") == 0;
  const char *name = "file";
  if (strcmp(kind, "below") == 0) {
    name = "below/file";
    MUST(mkdir(in_work("below"), 0755));
  }
  put(name, "begin");
  int writer = (int)MUST(open(in_work(name), O_RDWR | O_APPEND | O_CLOEXEC));
  int reader = (int)MUST(open(path, O_RDONLY | O_CLOEXEC));
  MUST(ftruncate(writer, SIZE - 3));
  if (write(writer, "end", 3) != 3) check_die("cannot write");
  char *mapped = (char *)MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, writer, 0));
  MUST(lseek(reader, 2, SEEK_SET));
  if (only_mapped) close(writer), close(reader);
  if (strcmp(kind, "deleted") == 0 || strcmp(kind, "below") == 0 || only_mapped) MUST(unlink(path));
  if (strcmp(kind, "replaced") == 0) {
    put("new", "another file");
    strcpy(from, path);
    MUST(rename(from, in_work("file")));
  }
  if (strcmp(kind, "linked") == 0) {
    MUST(mkdir(in_work("below"), 0755));
    strcpy(from, in_work("file"));
    MUST(link(from, in_work("below/other")));
    MUST(unlink(from));
  }
  check_ready();
  CHECK_BYTES("begin, mapped", "begin", mapped, 5);
  CHECK_BYTES("end, mapped", "end", mapped + SIZE - 3, 3);
  CHECK_EQ("hole, mapped", 0, mapped[SIZE / 2]);
  mapped[0] = 'B';
  MUST(msync(mapped, SIZE, MS_SYNC));
  if (only_mapped) return;
  char text[16] = "";
  CHECK_EQ("position", 2, lseek(reader, 0, SEEK_CUR));
  CHECK_EQ("read", 5, pread(reader, text, 5, 0));
  CHECK_STRING("begin, read", "Begin", text);
  CHECK_EQ("append", 5, write(writer, " more", 5));
  struct stat now;
  MUST(fstat(reader, &now));
  CHECK_EQ("size", SIZE + 5, now.st_size);
  CHECK_EQ("mode", 0640, now.st_mode & 07777);
  memset(text, 0, sizeof(text));
  CHECK_EQ("read the end", 8, pread(reader, text, 8, SIZE - 3));
  CHECK_STRING("end, read", "end more", text);
}

static void directory(void) {
  MUST(mkdir(in_work("empty"), 0755));
  int fd = (int)MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  MUST(rmdir(path));
  struct stat before, now;
  struct statx asked;
  /* on NFS the server does not know it any more, when it is asked */
  bool known = statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &asked) == 0 && fstat(fd, &before) == 0;
  check_ready();
  if (known) {
    CHECK_EQ("fstat", 0, fstat(fd, &now));
    CHECK_EQ("mode", before.st_mode, now.st_mode);
    CHECK_EQ("links", before.st_nlink, now.st_nlink);
    CHECK_EQ("make a file in it", -1, openat(fd, "x", O_WRONLY | O_CREAT, 0600));
  }
  CHECK_EQ("empty", -1, access(in_work("empty"), F_OK));
}

static void special(void) {
  MUST(mkfifo(in_work("fifo"), 0620));
  int fd = (int)MUST(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (write(fd, "queued", 6) != 6) check_die("cannot write");
  MUST(unlink(path));
  MUST(symlink("no/where", in_work("link")));
  int link = (int)MUST(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  MUST(unlink(path));
  check_ready();
  char text[64] = "";
  CHECK_EQ("read from the fifo", 6, read(fd, text, sizeof(text)));
  CHECK_STRING("content of the fifo", "queued", text);
  memset(text, 0, sizeof(text));
  CHECK_EQ("target", 8, readlinkat(link, "", text, sizeof(text)));
  CHECK_STRING("target", "no/where", text);
}

static void device(void) {
  MUST(mknod(in_work("null"), S_IFCHR | 0600, makedev(1, 3)));
  int fd = (int)MUST(open(path, O_RDWR | O_CLOEXEC));
  MUST(unlink(path));
  check_ready();
  struct stat now;
  char byte = 0;
  CHECK_EQ("fstat", 0, fstat(fd, &now));
  CHECK_EQ("device", makedev(1, 3), now.st_rdev);
  CHECK_EQ("write", 1, write(fd, &byte, 1));
  CHECK_EQ("read", 0, read(fd, &byte, 1));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const char *kind = argc > 2 ? argv[2] : "";
  if (strcmp(kind, "directory") == 0) directory();
  else if (strcmp(kind, "special") == 0) special();
  else if (strcmp(kind, "device") == 0) device();
  else file(kind);
  return check_finish();
}
