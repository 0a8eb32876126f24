/*
 * Files whose path leads elsewhere, by argv[2]:
 *   replaced  another file was renamed over it
 *   alias     its name is gone, another one in the same directory is not
 *   hidden    the other name is one that nobody sees from here: in base/b of the work directory, of which only base/a is
 *             mounted, on m
 *   named     made without a name (O_TMPFILE), and given one later
 *   bound     mounted where it is, its name elsewhere is gone
 *   log       deleted, and written to all the time
 *   lower     deleted from m, an overlay that had it, "lower", from its lower layer; it was only read
 * argv[3]: the directory they are in, the work directory unless given.
 */
#include "check.h"
#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

static char path[4300];
static const char *place;

static const char *in_place(const char *name) {
  snprintf(path, sizeof(path), "%.4000s/%s", place, name);
  return path;
}
static void put(const char *name, const char *text) {
  int fd = (int)MUST(open(in_place(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) check_die("cannot write");
  MUST(close(fd));
}
static void expect(const char *name, const char *text) {
  char now[256] = "";
  int fd = open(in_place(name), O_RDONLY | O_CLOEXEC);
  CHECK_EQ("open %s", 1, fd >= 0, name);
  CHECK_EQ("size of %s", strlen(text), read(fd, now, sizeof(now) - 1), name);
  CHECK_STRING("%s", text, now, name);
  close(fd);
}
/** What begins with `file` in a directory. */
static int count(const char *directory) {
  int found = 0;
  DIR *names = opendir(in_place(directory));
  if (!names) return -1;
  for (struct dirent *entry; (entry = readdir(names));) found += strncmp(entry->d_name, "file", 4) == 0;
  closedir(names);
  return found;
}
static void add(int fd, const char *text) {
  CHECK_EQ("write %s", strlen(text), write(fd, text, strlen(text)), text);
}

static void replaced(void) {
  put("file", "old");
  put("file.new", "new");
  struct stat before, after;
  int fd = (int)MUST(open(in_place("file"), O_RDWR | O_APPEND));
  char *mapped = (char *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  char from[4300];
  strcpy(from, in_place("file.new"));
  MUST(rename(from, in_place("file")));
  MUST(stat(path, &before));
  check_ready();
  MUST(stat(in_place("file"), &after));
  CHECK_EQ("inode of the new one", before.st_ino, after.st_ino);
  CHECK_EQ("links of the new one", before.st_nlink, after.st_nlink);
  add(fd, ", but in use");
  mapped[0] = 'O';
  char text[64] = "";
  CHECK_EQ("read", 15, pread(fd, text, sizeof(text), 0));
  CHECK_STRING("the old one", "Old, but in use", text);
  expect("file", "new");
  CHECK_EQ("files in the directory", 1, count("."));
}

static void alias(const char *file, const char *link_to, const char *other, const char *directory) {
  put(file, "one");
  int fd = (int)MUST(open(in_place(file), O_RDWR | O_APPEND)), reader = (int)MUST(open(path, O_RDONLY));
  char *mapped = (char *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  char from[4300];
  strcpy(from, in_place(link_to));
  unlink(in_place(other));
  MUST(link(from, path));
  MUST(unlink(in_place(file)));
  check_ready();
  add(fd, ", two");
  mapped[0] = 'O';
  expect(other, "One, two");
  char text[64] = "";
  CHECK_EQ("read", 8, read(reader, text, sizeof(text)));
  CHECK_STRING("by the other descriptor", "One, two", text);
  struct stat now, there;
  MUST(fstat(fd, &now));
  MUST(stat(in_place(other), &there));
  CHECK_EQ("inode", there.st_ino, now.st_ino);
  CHECK_EQ("files in the directory", strcmp(directory, ".") == 0, count(directory));
  /* for a second go */
  MUST(ftruncate(fd, 3));
  mapped[0] = 'o';
}

static void bound(void) {
  int fd = (int)MUST(open(in_place("bound"), O_RDWR));
  char link[4300], now[4300];
  char from[64];
  snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
  link[MUST(readlink(from, link, sizeof(link) - 1))] = 0;
  if (!strstr(link, " (deleted)")) check_die("%s has its name", link);
  struct stat before, after;
  MUST(fstat(fd, &before));
  check_ready();
  MUST(fstat(fd, &after));
  CHECK_EQ("inode", before.st_ino, after.st_ino);
  now[MUST(readlink(from, now, sizeof(now) - 1))] = 0;
  CHECK_STRING("link", link, now);
  expect("bound", "content");
}

static void named(void) {
  int fd = (int)MUST(open(place, O_TMPFILE | O_RDWR, 0600));
  int reader = (int)MUST(open(in_place("."), O_RDONLY));
  char from[64];
  snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
  MUST(linkat(AT_FDCWD, from, AT_FDCWD, in_place("file"), AT_SYMLINK_FOLLOW));
  add(fd, "one");
  check_ready();
  add(fd, ", two");
  expect("file", "one, two");
  struct stat now, there;
  MUST(fstat(fd, &now));
  MUST(stat(in_place("file"), &there));
  CHECK_EQ("inode", there.st_ino, now.st_ino);
  CHECK_EQ("links", 1, now.st_nlink);
  close(reader);
}

static void lower(void) {
  int fd = (int)MUST(open(in_place("m/lower"), O_RDONLY));
  char *mapped = (char *)MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  MUST(unlink(path));
  struct stat before, after;
  MUST(fstat(fd, &before));
  check_ready();
  MUST(fstat(fd, &after));
  CHECK_EQ("mode", before.st_mode, after.st_mode);
  CHECK_EQ("size", before.st_size, after.st_size);
  CHECK_BYTES("mapped", "of the lower layer", mapped, 18);
  char text[64] = "";
  CHECK_EQ("read", 18, read(fd, text, sizeof(text)));
  CHECK_STRING("content", "of the lower layer", text);
  CHECK_EQ("it has no name", -1, access(in_place("m/lower"), F_OK));
}

static void keep_a_log(void) {
  int fd = (int)MUST(open(in_place("file"), O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0600));
  MUST(unlink(path));
  char go[4300];
  snprintf(go, sizeof(go), "%s/go", check_dir);
  char text[32];
  check_write_file("ready", text, (size_t)snprintf(text, sizeof(text), "%d\n", getpid()));
  double end = check_seconds() + CHECK_SECONDS_TO_LIVE;
  uint64_t count = 0, record;
  while (access(go, F_OK) != 0 && check_seconds() < end) {
    count++;
    if (write(fd, &count, sizeof(count)) != sizeof(count)) check_die("cannot write");
    if (count % 64 == 0) check_sleep_ms(1);
  }
  MUST(lseek(fd, 0, SEEK_SET));
  for (uint64_t i = 1; i <= count; i++) {
    if (read(fd, &record, sizeof(record)) == sizeof(record) && record == i) continue;
    CHECK_EQ("record of the log", i, record);
    break;
  }
  CHECK_EQ("end of the log", 0, read(fd, &record, sizeof(record)));
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  const char *kind = argc > 2 ? argv[2] : "";
  place = argc > 3 ? argv[3] : check_dir;
  if (strcmp(kind, "replaced") == 0) replaced();
  else if (strcmp(kind, "alias") == 0) alias("file", "file", "file.other", ".");
  else if (strcmp(kind, "hidden") == 0) alias("m/file", "base/a/file", "base/b/file", "m");
  else if (strcmp(kind, "log") == 0) keep_a_log();
  else if (strcmp(kind, "lower") == 0) lower();
  else if (strcmp(kind, "named") == 0) named();
  else if (strcmp(kind, "bound") == 0) bound();
  else check_die("kind %s is not known", kind);
  return check_finish();
}
