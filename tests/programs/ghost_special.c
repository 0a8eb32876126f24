/*
 * What is deleted and no regular file: a directory that is the working directory and one that is open, a fifo with
 * content, a symbolic link and a socket by O_PATH, a device. All of them are in a directory that is gone, too. argv[2]:
 * the directory that one is in, the work directory unless given.
 */
#include "check.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

static char place[4096], path[4300];

static const char *in_place(const char *name) {
  snprintf(path, sizeof(path), "%s/%s", place, name);
  return path;
}
static void compare(const char *name, int fd, const struct stat *before) {
  struct stat now;
  CHECK_EQ("%s: fstat", 0, fstat(fd, &now), name);
  CHECK_EQ("%s: mode", before->st_mode, now.st_mode, name);
  CHECK_EQ("%s: owner", before->st_uid, now.st_uid, name);
  CHECK_EQ("%s: links", before->st_nlink, now.st_nlink, name);
  CHECK_EQ("%s: device number", before->st_rdev, now.st_rdev, name);
  CHECK_EQ("%s: modified", before->st_mtim.tv_sec, now.st_mtim.tv_sec, name);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  snprintf(place, sizeof(place), "%.4000s/place", argc > 2 ? argv[2] : check_dir);
  MUST(mkdir(place, 0755));
  MUST(mkdir(in_place("cwd"), 0750));
  MUST(mkdir(in_place("open"), 0700));
  MUST(chown(in_place("open"), 12, 34));
  int directory = (int)MUST(open(in_place("open"), O_RDONLY | O_DIRECTORY));
  int place_fd = (int)MUST(open(place, O_PATH | O_DIRECTORY));
  MUST(chdir(in_place("cwd")));
  MUST(mkfifo(in_place("fifo"), 0640));
  int fifo = (int)MUST(open(in_place("fifo"), O_RDWR | O_NONBLOCK));
  int fifo_writer = (int)MUST(open(in_place("fifo"), O_WRONLY));
  if (write(fifo_writer, "in the fifo", 11) != 11) check_die("cannot write");
  MUST(symlink("where/it leads", in_place("link")));
  int link = (int)MUST(open(in_place("link"), O_PATH | O_NOFOLLOW));
  MUST(mknod(in_place("null"), S_IFCHR | 0666, makedev(1, 3)));
  int null = (int)MUST(open(in_place("null"), O_RDWR));
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int listener = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
  MUST(chdir(place)); /* the address is short */
  strcpy(address.sun_path, "socket");
  MUST(bind(listener, (struct sockaddr *)&address, sizeof(address)));
  MUST(chdir("cwd"));
  MUST(close(listener));
  int socket = (int)MUST(open(in_place("socket"), O_PATH));
  struct stat stats[6];
  for (const char **name = (const char *[]){"fifo", "link", "null", "socket", NULL}; *name; name++)
    MUST(unlink(in_place(*name)));
  MUST(rmdir(in_place("open")));
  MUST(rmdir(in_place("cwd")));
  MUST(rmdir(place));
  MUST(fstat(directory, &stats[0]));
  MUST(fstat(fifo, &stats[1]));
  MUST(fstat(link, &stats[2]));
  MUST(fstat(null, &stats[3]));
  MUST(fstat(socket, &stats[4]));
  MUST(fstat(place_fd, &stats[5]));

  check_ready();

  compare("directory", directory, &stats[0]);
  compare("fifo", fifo, &stats[1]);
  compare("symbolic link", link, &stats[2]);
  compare("device", null, &stats[3]);
  compare("socket", socket, &stats[4]);
  compare("directory by O_PATH", place_fd, &stats[5]);
  char text[64] = "";
  CHECK_EQ("read the fifo", 11, read(fifo, text, sizeof(text)));
  CHECK_STRING("in the fifo", "in the fifo", text);
  CHECK_EQ("write the fifo", 4, write(fifo_writer, "more", 4));
  CHECK_EQ("read it by the other", 4, read(fifo, text, 4));
  ssize_t n = readlinkat(link, "", text, sizeof(text) - 1);
  text[n < 0 ? 0 : n] = 0;
  CHECK_STRING("symbolic link", "where/it leads", text);
  CHECK_EQ("the device is /dev/null", 5, write(null, "12345", 5));
  CHECK_EQ("and empty", 0, read(null, text, 5));
  CHECK_EQ("nothing can be made in the working directory", -1, open("new", O_CREAT | O_WRONLY, 0600));
  CHECK_EQ("it has no name", ENOENT, errno);
  CHECK_EQ("nothing is left", -1, access(place, F_OK));
  return check_finish();
}
