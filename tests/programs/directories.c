/* A working directory and a root directory of its own (chroot), and files that are open inside and outside of it. */
#include "check.h"
#include <sys/stat.h>

static ino_t inode(const char *path) {
  struct stat st;
  return stat(path, &st) ? 0 : st.st_ino;
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  int outside = (int)MUST(open("/dev/null", O_RDONLY));
  char path[4400];
  snprintf(path, sizeof(path), "%s/place/deep", check_dir);
  *strrchr(path, '/') = 0;
  mkdir(path, 0755);
  path[strlen(path)] = '/';
  mkdir(path, 0755);
  MUST(chroot(check_dir));
  check_dir[0] = 0; /* the work directory is the root from here on */
  MUST(chdir("/place/deep"));
  int inside = (int)MUST(open("/place/file", O_RDWR | O_CREAT, 0644));
  MUST(write(inside, "hello", 5));
  ino_t root = inode("/"), here = inode(".");

  check_ready();

  char cwd[4096];
  CHECK("getcwd", getcwd(cwd, sizeof(cwd)) != NULL);
  CHECK_STRING("working directory", "/place/deep", cwd);
  CHECK_EQ("inode of the root", (long)root, (long)inode("/"));
  CHECK_EQ("inode of the working directory", (long)here, (long)inode("."));
  CHECK_EQ("inode of ..", (long)inode("/place"), (long)inode(".."));
  CHECK_EQ("nothing above the root", (long)root, (long)inode("/.."));
  CHECK_EQ("position of the file inside", 5, lseek(inside, 0, SEEK_CUR));
  CHECK("the file inside is the one at its path", inode("/place/file") != 0);
  char byte;
  CHECK_EQ("the file outside is open", 0, read(outside, &byte, 1));
  return check_finish();
}
