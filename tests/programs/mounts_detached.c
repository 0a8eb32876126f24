/*
 * Files and directories of file systems that were unmounted while they were open. Run in a mount namespace of its own.
 */
#include "check.h"
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

static int make(const char *path, const char *text) {
  int fd = (int)MUST(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
  MUST(write(fd, text, strlen(text)));
  return fd;
}

static long mount_of(int fd) {
  struct statx status;
  MUST(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status));
  return (long)status.stx_mnt_id;
}

static void check_text(int fd, const char *wanted) {
  char text[64] = "";
  MUST(pread(fd, text, sizeof(text) - 1, 0));
  CHECK_STRING("a text", wanted, text);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(mount("top", "/mnt", "tmpfs", 0, NULL));
  for (const char *name = "ab"; *name; name++) {
    char path[16];
    snprintf(path, sizeof(path), "/mnt/%c", *name);
    MUST(mkdir(path, 0755));
    MUST(mount("part", path, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=256k"));
  }

  /* one that a directory leads to */
  MUST(mkdir("/mnt/a/dir", 0711));
  MUST(setxattr("/mnt/a/dir", "trusted.name", "value", 5, 0));
  close(make("/mnt/a/other", "another"));
  int inside = make("/mnt/a/dir/file", "inside");
  int deleted = make("/mnt/a/dir/deleted", "deleted");
  MUST(unlink("/mnt/a/dir/deleted"));
  int directory = (int)MUST(open("/mnt/a/dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int root = (int)MUST(open("/mnt/a", O_PATH | O_CLOEXEC));
  MUST(chdir("/mnt/a/dir"));
  MUST(umount2("/mnt/a", MNT_DETACH));

  /* one of which there are only files */
  MUST(mkdir("/mnt/b/deep", 0700));
  int alone = make("/mnt/b/deep/file", "alone");
  MUST(fsetxattr(alone, "trusted.name", "value", 5, 0));
  MUST(lseek(alone, 2, SEEK_SET));
  int reads = (int)MUST(open("/mnt/b/deep/file", O_RDONLY | O_CLOEXEC));
  int gone = make("/mnt/b/deep/gone", "gone");
  MUST(unlink("/mnt/b/deep/gone"));
  char *mapped = (char *)MUST((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, alone, 0));
  MUST(umount2("/mnt/b", MNT_DETACH));

  check_ready();

  check_text(inside, "inside");
  check_text(deleted, "deleted");
  struct stat status;
  MUST(stat(".", &status));
  CHECK_EQ("mode of the working directory", 0711, status.st_mode & 07777);
  char value[8];
  CHECK_EQ("its attribute", 5, (long)getxattr(".", "trusted.name", value, sizeof(value)));
  CHECK_EQ("mount of a file", mount_of(root), mount_of(inside));
  CHECK_EQ("mount of a deleted file", mount_of(root), mount_of(deleted));
  CHECK_EQ("mount of a directory", mount_of(root), mount_of(directory));
  int again = (int)MUST(openat(directory, "file", O_RDWR | O_CLOEXEC));
  CHECK_EQ("mount of what is opened now", mount_of(root), mount_of(again));
  MUST(pwrite(again, "I", 1, 0));
  check_text(inside, "Inside");
  int other = (int)MUST(openat(directory, "../other", O_RDONLY | O_CLOEXEC));
  check_text(other, "another");
  struct statvfs space;
  MUST(fstatvfs(root, &space));
  CHECK_EQ("its size", 262144, (long)(space.f_blocks * space.f_bsize));
  CHECK_EQ("its flags", ST_NOSUID | ST_NOEXEC, (long)(space.f_flag & (ST_NOSUID | ST_NOEXEC | ST_RDONLY)));

  CHECK_EQ("position", 2, (long)lseek(alone, 0, SEEK_CUR));
  CHECK_STRING("the mapping", "alone", mapped);
  MUST(pwrite(alone, "A", 1, 0));
  check_text(reads, "Alone");
  CHECK("the mapping is that of the file", mapped[0] == 'A');
  CHECK_EQ("attribute of a file", 5, (long)fgetxattr(reads, "trusted.name", value, sizeof(value)));
  check_text(gone, "gone");
  CHECK_EQ("their mount", mount_of(alone), mount_of(gone));
  CHECK("they are on two mounts", mount_of(alone) != mount_of(inside));
  MUST(chdir("/"));
  return check_finish();
}
