/*
 * A program whose file and one of whose libraries are gone: "deleted", or "replaced" by other files of these names, as
 * by an upgrade of packages. It runs from copies, and calls code of both files that was not called before. argv[3]: the
 * directory these are in, the work directory unless given. "upgraded": they are there already, and replaced by others
 * once the program is ready.
 */
#include "check.h"
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char program[4200], library[4200];

static void copy(const char *from, const char *to, mode_t mode) {
  int in = (int)MUST(open(from, O_RDONLY | O_CLOEXEC));
  unlink(to);
  int out = (int)MUST(open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  while (MUST(sendfile(out, in, NULL, 1 << 20)) > 0) continue;
  MUST(close(in));
  MUST(close(out));
}
/** Where a function of a library was mapped from. */
static void *symbol(void *handle, const char *name) {
  void *found = dlsym(handle, name);
  if (!found) check_die("dlsym: %s", dlerror());
  return found;
}
static void go_away(const char *path, bool replace) {
  if (!replace) {
    MUST(unlink(path));
    return;
  }
  char other[4300];
  snprintf(other, sizeof(other), "%s.new", path);
  int fd = (int)MUST(open(other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
  if (write(fd, "the new version\n", 16) != 16) check_die("cannot write");
  MUST(close(fd));
  MUST(rename(other, path));
}
static void whole(const char *name, const char *path) {
  char text[64] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK_EQ("%s: size of the new one", 16, read(fd, text, sizeof(text)), name);
  CHECK_STRING("%s: the new one", "the new version\n", text, name);
  close(fd);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  if (argc > 2 && strcmp(argv[2], "answer") == 0) return 3;
  bool upgraded = argc > 2 && strcmp(argv[2], "upgraded") == 0;
  bool replace = upgraded || (argc > 2 && strcmp(argv[2], "replaced") == 0);
  const char *place = argc > 3 ? argv[3] : check_dir;
  snprintf(program, sizeof(program), "%s/program", place);
  snprintf(library, sizeof(library), "%s/library.so", place);
  char self[4200];
  self[MUST(readlink("/proc/self/exe", self, sizeof(self) - 1))] = 0;
  if (strcmp(self, program) != 0) {
    if (!upgraded) copy(self, program, 0755);
    MUST(execv(program, argv));
  }
  void *zlib = dlopen("libm.so.6", RTLD_NOW);
  if (!zlib) check_die("dlopen: %s", dlerror());
  Dl_info info;
  MUST(dladdr(symbol(zlib, "cbrt"), &info) ? 0 : -1);
  if (!upgraded) copy(info.dli_fname, library, 0644);
  /* a file of its own, not the one that is loaded */
  void *own = dlmopen(LM_ID_NEWLM, library, RTLD_NOW);
  if (!own) check_die("dlmopen: %s", dlerror());
  double (*root)(double) = (double (*)(double))symbol(own, "cbrt");
  struct stat before, after;
  MUST(stat("/proc/self/exe", &before));
  if (!upgraded) {
    go_away(program, replace);
    go_away(library, replace);
  }
  char link[4300];
  link[MUST(readlink("/proc/self/exe", link, sizeof(link) - 1))] = 0;

  check_ready();

  char now[4300];
  ssize_t n = readlink("/proc/self/exe", now, sizeof(now) - 1);
  now[n < 0 ? 0 : n] = 0;
  if (!replace) CHECK_STRING("link to the program", link, now);
  CHECK("link to the program: %s", strncmp(now, program, strlen(program)) == 0 && strstr(now, " (deleted)"), now);
  CHECK_EQ("stat of the program", 0, stat("/proc/self/exe", &after));
  CHECK_EQ("size of the program", before.st_size, after.st_size);
  CHECK_EQ("mode of the program", before.st_mode, after.st_mode);
  CHECK_EQ("links of the program", 0, after.st_nlink);
  CHECK("the library works", root(27.0) > 2.999 && root(27.0) < 3.001);
  /* pages of the files that were never touched */
  pid_t child = fork();
  if (child == 0) {
    MUST(execl("/proc/self/exe", "program", check_dir, "answer", NULL));
  }
  int status = -1;
  CHECK_EQ("waitpid", child, waitpid(child, &status, 0));
  CHECK_EQ("the program can be executed", 3 << 8, status);
  if (replace) whole("program", program), whole("library", library);
  return check_finish();
}
