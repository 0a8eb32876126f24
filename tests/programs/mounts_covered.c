/*
 * Files that no path leads to any more, or not on their mount: because something is mounted over their mount, over
 * a directory above them, or over themselves; or because they were deleted there. Run in a mount namespace of its own.
 */
#include "check.h"
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static int make(const char *path, const char *text) {
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  MUST(write(fd, text, strlen(text)));
  return fd;
}

static void tmpfs(const char *point) {
  MUST(mount("part", point, "tmpfs", 0, "size=1m"));
}

static uint64_t mount_of(int fd) {
  struct statx status;
  MUST(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status));
  return status.stx_mnt_id;
}

static uint64_t mount_at(const char *path) {
  struct statx status;
  MUST(statx(AT_FDCWD, path, 0, STATX_MNT_ID, &status));
  return status.stx_mnt_id;
}

/** Whether a descriptor and a path lead to one file on one mount. */
static bool is_at(int fd, const char *path) {
  struct stat a, b;
  if (fstat(fd, &a) || stat(path, &b)) return false;
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && mount_of(fd) == mount_at(path);
}

static void check_text(const char *name, int fd, const char *wanted) {
  char text[64] = "";
  MUST(pread(fd, text, sizeof(text) - 1, 0));
  CHECK_STRING(name, wanted, text);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  tmpfs("/mnt");
  for (const char *name = "abcd"; *name; name++) {
    char path[16];
    snprintf(path, sizeof(path), "/mnt/%c", *name);
    MUST(mkdir(path, 0755));
    tmpfs(path);
  }

  /* a whole mount, covered twice */
  MUST(mkdir("/mnt/a/dir", 0711));
  int covered = make("/mnt/a/dir/file", "covered");
  int deleted = make("/mnt/a/dir/deleted", "deleted");
  MUST(fsetxattr(deleted, "trusted.name", "value", 5, 0));
  MUST(unlink("/mnt/a/dir/deleted"));
  int directory = (int)MUST(open("/mnt/a/dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int root = (int)MUST(open("/mnt/a", O_PATH | O_CLOEXEC));
  char *mapped = (char *)MUST((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, covered, 0));
  MUST(lseek(covered, 3, SEEK_SET));
  MUST(chdir("/mnt/a/dir"));
  tmpfs("/mnt/a");
  tmpfs("/mnt/a");

  /* a part of one */
  MUST(mkdir("/mnt/b/sub", 0755));
  int part = make("/mnt/b/sub/file", "part");
  int gone = make("/mnt/b/sub/gone", "gone");
  MUST(unlink("/mnt/b/sub/gone"));
  tmpfs("/mnt/b/sub");
  close(make("/mnt/b/sub/file", "another"));

  /* a file itself */
  int below = make("/mnt/b/below", "below");
  close(make("/mnt/b/above", "above"));
  MUST(mount("/mnt/b/above", "/mnt/b/below", NULL, MS_BIND, NULL));
  int above = (int)MUST(open("/mnt/b/below", O_RDONLY | O_CLOEXEC));

  /* the same directory, twice */
  int under = make("/mnt/c/file", "twice");
  MUST(mount("/mnt/c", "/mnt/c", NULL, MS_BIND, NULL));
  int over = (int)MUST(open("/mnt/c/file", O_RDONLY | O_CLOEXEC));

  /* what nothing covers, but has been deleted, or renamed */
  int visible = make("/mnt/d/visible", "visible");
  MUST(unlink("/mnt/d/visible"));
  MUST(mkdir("/mnt/d/away", 0700));
  int with_directory = make("/mnt/d/away/file", "with its directory");
  int away = (int)MUST(open("/mnt/d/away", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  MUST(unlink("/mnt/d/away/file"));
  MUST(rmdir("/mnt/d/away"));
  int replaced = make("/mnt/d/name", "old");
  MUST(unlink("/mnt/d/name"));
  close(make("/mnt/d/name", "new"));

  check_ready();

  CHECK_EQ("position", 3, lseek(covered, 0, SEEK_CUR));
  CHECK_STRING("the mapping", "covered", mapped);
  MUST(pwrite(covered, "C", 1, 0));
  CHECK("the mapping is that of the file", mapped[0] == 'C');
  struct stat status;
  MUST(stat(".", &status));
  CHECK_EQ("mode of the working directory", 0711, status.st_mode & 07777);
  CHECK_EQ("mount of the working directory", (long)mount_of(root), (long)mount_at("."));
  CHECK_EQ("mount of a covered file", (long)mount_of(root), (long)mount_of(covered));
  CHECK_EQ("mount of a covered directory", (long)mount_of(root), (long)mount_of(directory));
  CHECK_EQ("mount of a deleted file", (long)mount_of(root), (long)mount_of(deleted));
  check_text("the deleted file on a covered mount", deleted, "deleted");
  MUST(fstat(deleted, &status));
  CHECK_EQ("its names", 0, (long)status.st_nlink);
  char value[8] = "";
  CHECK_EQ("its attribute", 5, (long)fgetxattr(deleted, "trusted.name", value, sizeof(value)));
  MUST(umount("/mnt/a"));
  MUST(umount("/mnt/a"));
  CHECK("the covered file is there", is_at(covered, "/mnt/a/dir/file"));
  CHECK("the covered directory is there", is_at(directory, "/mnt/a/dir"));
  CHECK("the covered mount is there", is_at(root, "/mnt/a"));
  check_text("the covered file", covered, "Covered");

  check_text("a file in a covered directory", part, "part");
  check_text("a deleted file in one", gone, "gone");
  CHECK("another is over it", !is_at(part, "/mnt/b/sub/file"));
  MUST(umount("/mnt/b/sub"));
  CHECK("the file in the covered directory is there", is_at(part, "/mnt/b/sub/file"));
  CHECK_EQ("its mount", (long)mount_of(part), (long)mount_of(gone));

  CHECK("the file above", is_at(above, "/mnt/b/below"));
  check_text("its content", above, "above");
  check_text("the file below", below, "below");
  close(above);
  MUST(umount("/mnt/b/below"));
  CHECK("the file below is there", is_at(below, "/mnt/b/below"));

  CHECK("the file on the upper mount", is_at(over, "/mnt/c/file"));
  CHECK("the file on the lower mount", !is_at(under, "/mnt/c/file"));
  close(over);
  MUST(umount("/mnt/c"));
  CHECK("the lower mount", is_at(under, "/mnt/c/file"));

  check_text("a deleted file", visible, "visible");
  check_text("a file that was deleted with its directory", with_directory, "with its directory");
  check_text("a file whose name is another's", replaced, "old");
  MUST(fstat(away, &status));
  CHECK_EQ("mode of a deleted directory", 0700, status.st_mode & 07777);
  CHECK_EQ("names left in /mnt/d", 0, access("/mnt/d/name", F_OK));
  CHECK("no others", access("/mnt/d/visible", F_OK) != 0 && access("/mnt/d/away", F_OK) != 0);
  return check_finish();
}
