/* Open regular files and directories: position, flags, owner and signal, shared descriptions, O_PATH, O_DIRECT. */
#include "check.h"
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

static char path[4400];
static const char *in_dir(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", check_dir, name);
  return path;
}

struct state {
  int flags, descriptor_flags, owner_type, owner, signal;
  off_t position;
  dev_t device;
  ino_t inode;
  mode_t mode;
};

static void look(int fd, struct state *s) {
  struct stat st;
  struct f_owner_ex owner = {0, 0};
  memset(s, 0, sizeof(*s));
  s->flags = fcntl(fd, F_GETFL);
  s->descriptor_flags = fcntl(fd, F_GETFD);
  s->position = lseek(fd, 0, SEEK_CUR);
  s->signal = fcntl(fd, F_GETSIG);
  if (fcntl(fd, F_GETOWN_EX, &owner) == 0) s->owner_type = owner.type, s->owner = owner.pid;
  if (fstat(fd, &st) == 0) s->device = st.st_dev, s->inode = st.st_ino, s->mode = st.st_mode;
}

#define MAX 32
static struct {
  const char *name;
  int fd;
  struct state before;
} files[MAX];
static int count;

static int keep(const char *name, int fd) {
  files[count].name = name;
  files[count].fd = fd;
  count++;
  return fd;
}

static void write_file(const char *name, const char *text) {
  int fd = (int)MUST(open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0644));
  MUST(write(fd, text, strlen(text)));
  close(fd);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  for (int i = 0; i < 10; i++) {
    char name[16];
    snprintf(name, sizeof(name), "file-%d", i);
    write_file(name, "0123456789abcdefghijklmnopqrstuvwxyz\n");
  }
  write_file("empty", "");
  int read_only = keep("read-only", (int)MUST(open(in_dir("file-0"), O_RDONLY)));
  MUST(lseek(read_only, 7, SEEK_SET));
  int both = keep("read-write", (int)MUST(open(in_dir("file-1"), O_RDWR | O_CLOEXEC)));
  MUST(lseek(both, 1ll << 40, SEEK_SET));
  int append = keep("append", (int)MUST(open(in_dir("file-2"), O_WRONLY | O_APPEND)));
  MUST(write(append, "more\n", 5));
  keep("non-blocking", (int)MUST(open(in_dir("file-3"), O_RDWR | O_NONBLOCK | O_NOATIME)));
  keep("synchronous", (int)MUST(open(in_dir("file-3"), O_RDWR | O_SYNC)));
  keep("data synchronous", (int)MUST(open(in_dir("file-3"), O_RDWR | O_DSYNC)));
  int direct = open(in_dir("file-3"), O_RDWR | O_DIRECT);
  if (direct >= 0)
    keep("O_DIRECT", direct);
  else
    check_note("no O_DIRECT on this filesystem");
  keep("O_PATH", (int)MUST(open(in_dir("file-4"), O_PATH)));
  keep("O_PATH of a directory", (int)MUST(open(check_dir, O_PATH | O_CLOEXEC)));
  symlink("file-4", in_dir("link"));
  int link_fd = keep("O_PATH of a symbolic link", (int)MUST(open(in_dir("link"), O_PATH | O_NOFOLLOW)));
  int directory = keep("directory", (int)MUST(open(check_dir, O_RDONLY | O_DIRECTORY)));
  int owned = keep("with an owner and a signal", (int)MUST(open(in_dir("file-5"), O_RDWR)));
  MUST(fcntl(owned, F_SETSIG, SIGRTMIN + 4));
  MUST(fcntl(owned, F_SETOWN_EX, (&(struct f_owner_ex){F_OWNER_TID, check_tid()})));
  int group = keep("owned by a group", (int)MUST(open(in_dir("file-5"), O_RDWR)));
  MUST(fcntl(group, F_SETOWN_EX, (&(struct f_owner_ex){F_OWNER_PGRP, getpgrp()})));
  int owner_process = keep("owned by a process", (int)MUST(open(in_dir("file-5"), O_RDWR)));
  MUST(fcntl(owner_process, F_SETOWN, getpid()));
  int shared = keep("shared description", (int)MUST(open(in_dir("file-6"), O_RDWR)));
  int twin = keep("its twin", (int)MUST(dup(shared)));
  int twin_exec = keep("its twin with cloexec", (int)MUST(fcntl(shared, F_DUPFD_CLOEXEC, 500)));
  int apart = keep("same file, description of its own", (int)MUST(open(in_dir("file-6"), O_RDWR)));
  MUST(lseek(shared, 20, SEEK_SET));
  MUST(lseek(apart, 3, SEEK_SET));
  keep("empty", (int)MUST(open(in_dir("empty"), O_RDWR)));
  int truncating = keep("opened with O_CREAT, O_EXCL and O_TRUNC", (int)MUST(open(in_dir("new"), O_RDWR | O_CREAT | O_EXCL | O_TRUNC, 0600)));
  MUST(write(truncating, "kept", 4));
  int no_mode = keep("access mode 3", open(in_dir("file-7"), 3));
  if (no_mode < 0) count--;
  /* moved while it is open: the path follows */
  int renamed = keep("renamed", (int)MUST(open(in_dir("file-8"), O_RDWR)));
  char new_name[4400];
  strcpy(new_name, in_dir("file-8 with a new name\nand a line"));
  MUST(rename(in_dir("file-8"), new_name));
  for (int i = 0; i < count; i++) look(files[i].fd, &files[i].before);

  check_ready();

  for (int i = 0; i < count; i++) {
    struct state now;
    look(files[i].fd, &now);
    CHECK_EQ("flags of %s", files[i].before.flags, now.flags, files[i].name);
    CHECK_EQ("descriptor flags of %s", files[i].before.descriptor_flags, now.descriptor_flags, files[i].name);
    CHECK_EQ("position of %s", files[i].before.position, now.position, files[i].name);
    CHECK_EQ("owner of %s", files[i].before.owner, now.owner, files[i].name);
    CHECK_EQ("type of the owner of %s", files[i].before.owner_type, now.owner_type, files[i].name);
    CHECK_EQ("signal of %s", files[i].before.signal, now.signal, files[i].name);
    CHECK_EQ("device of %s", (long)files[i].before.device, (long)now.device, files[i].name);
    CHECK_EQ("inode of %s", (long)files[i].before.inode, (long)now.inode, files[i].name);
    CHECK_EQ("mode of %s", files[i].before.mode, now.mode, files[i].name);
  }
  char text[64] = "";
  CHECK_EQ("reading on", 5, read(read_only, text, 5));
  CHECK_STRING("what is read next", "789ab", text);
  /* one description: what one moves, the other sees */
  lseek(twin, 11, SEEK_SET);
  CHECK_EQ("position through the shared description", 11, lseek(shared, 0, SEEK_CUR));
  CHECK_EQ("position through the third descriptor", 11, lseek(twin_exec, 0, SEEK_CUR));
  CHECK_EQ("position of the description of its own", 3, lseek(apart, 0, SEEK_CUR));
  fcntl(shared, F_SETFL, fcntl(shared, F_GETFL) | O_NONBLOCK);
  CHECK("flags through the shared description", fcntl(twin, F_GETFL) & O_NONBLOCK);
  CHECK("flags of the description of its own", !(fcntl(apart, F_GETFL) & O_NONBLOCK));
  lseek(append, 0, SEEK_SET);
  MUST(write(append, "end", 3));
  int fd = open(in_dir("file-2"), O_RDONLY);
  memset(text, 0, sizeof(text));
  ssize_t length = read(fd, text, sizeof(text) - 1);
  CHECK_EQ("length after appending", 45, length);
  CHECK_STRING("what was appended last", "end", text + 42);
  char target[64] = "";
  CHECK_EQ("the O_PATH descriptor is the link itself", 6, readlinkat(link_fd, "", target, sizeof(target) - 1));
  CHECK_STRING("target of the link", "file-4", target);
  DIR *entries = fdopendir(dup(directory));
  int seen = 0;
  while (entries && readdir(entries)) seen++;
  CHECK("the directory lists its entries (%d)", seen >= 14, seen);
  CHECK_EQ("length of the file opened with O_TRUNC", 4, lseek(truncating, 0, SEEK_END));
  MUST(write(renamed, "x", 1));
  CHECK_EQ("write to a read-only descriptor", -1, write(read_only, "x", 1));
  return check_finish();
}
