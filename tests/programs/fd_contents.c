/*
 * Kernel objects with a content of their own: maps of eBPF (hash tables and arrays, by one and several open files,
 * frozen, read only) and POSIX message queues, with a name and without one, which a child has, too.
 */
#include "tree.h"
#include <linux/bpf.h>
#include <mqueue.h>
#include <sys/stat.h>

static long bpf(int command, union bpf_attr *attributes) {
  return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}
static int make_map(uint32_t type, uint32_t value_size, uint32_t entries, uint32_t flags, const char *name) {
  union bpf_attr a = {.map_type = type, .key_size = 4, .value_size = value_size, .max_entries = entries, .map_flags = flags};
  strcpy(a.map_name, name);
  return (int)MUST(bpf(BPF_MAP_CREATE, &a));
}
static long element(int command, int map, uint32_t key, void *value) {
  union bpf_attr a = {.map_fd = (uint32_t)map, .key = (uint64_t)&key, .value = (uint64_t)value};
  return bpf(command, &a);
}
static void put(int map, uint32_t key, size_t size, uint64_t seed) {
  char value[1024];
  check_fill(value, size, seed);
  MUST(element(BPF_MAP_UPDATE_ELEM, map, key, value));
}
static void has(const char *name, int map, uint32_t key, size_t size, uint64_t seed) {
  char value[1024] = {0};
  CHECK_EQ("lookup in %s of %u", 0, element(BPF_MAP_LOOKUP_ELEM, map, key, value), name, key);
  check_filled(name, value, size, seed);
}
static struct bpf_map_info info_of(int map) {
  struct bpf_map_info info = {0};
  union bpf_attr a = {.info = {.bpf_fd = (uint32_t)map, .info_len = sizeof(info), .info = (uint64_t)&info}};
  CHECK_EQ("info of map %d", 0, bpf(BPF_OBJ_GET_INFO_BY_FD, &a), map);
  return info;
}
static int again(int map, uint32_t flags) {
  union bpf_attr a = {.map_id = info_of(map).id, .open_flags = flags};
  return (int)MUST(bpf(BPF_MAP_GET_FD_BY_ID, &a));
}

static void send(mqd_t queue, const char *text, unsigned priority) { MUST(mq_send(queue, text, strlen(text), priority)); }
static void receives(const char *name, mqd_t queue, const char *text, unsigned priority) {
  char found[256] = {0};
  unsigned p = 0;
  CHECK_EQ("bytes from %s", (long)strlen(text), mq_receive(queue, found, sizeof(found), &p), name);
  CHECK_STRING("message from %s", text, found, name);
  CHECK_EQ("priority from %s", priority, p, name);
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  bool maps = true;
  union bpf_attr probe = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  int tried = (int)bpf(BPF_MAP_CREATE, &probe), hash = -1, array = -1, same = -1, reader = -1, fixed = -1;
  if (tried < 0) check_note("no maps of eBPF: %s", strerror(errno)), maps = false;
  else close(tried);
  if (maps) {
    hash = make_map(BPF_MAP_TYPE_HASH, 700, 1000, BPF_F_NO_PREALLOC, "a_hash");
    array = make_map(BPF_MAP_TYPE_ARRAY, 12, 50, 0, "an_array");
    fixed = make_map(BPF_MAP_TYPE_HASH, 8, 3, 0, "");
    for (uint32_t i = 0; i < 300; i++) put(hash, i * 7919, 700, i);
    for (uint32_t i = 0; i < 50; i += 3) put(array, i, 12, 1000 + i);
    put(fixed, 5, 8, 2000);
    union bpf_attr a = {.map_fd = (uint32_t)fixed};
    MUST(bpf(BPF_MAP_FREEZE, &a));
    same = again(hash, 0), reader = again(hash, BPF_F_RDONLY);
    MUST(fcntl(same, F_SETFD, 0));
  }
  char name[64], other[64], gone[64];
  snprintf(name, sizeof(name), "/ckpt-%d-named", getpid());
  snprintf(gone, sizeof(gone), "/ckpt-%d-gone", getpid());
  snprintf(other, sizeof(other), "/ckpt-%d-empty", getpid());
  struct mq_attr attributes = {.mq_maxmsg = 7, .mq_msgsize = 200}, found;
  mqd_t named = (mqd_t)MUST(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0640, &attributes));
  mqd_t writer = (mqd_t)MUST(mq_open(name, O_WRONLY));
  mqd_t deleted = (mqd_t)MUST(mq_open(gone, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes));
  mqd_t empty = (mqd_t)MUST(mq_open(other, O_RDONLY | O_CREAT | O_EXCL | O_NONBLOCK, 0600, NULL));
  MUST(mq_unlink(gone));
  send(named, "first of five", 5), send(writer, "of nine", 9), send(named, "second of five", 5), send(named, "", 5), send(writer, "of none", 0);
  send(deleted, "one", 3), send(deleted, "two", 3), send(deleted, "three", 4);

  pid_t child = tree_fork("child");
  if (child == 0) {
    if (maps) close(array);
    tree_settled();
    if (maps) has("the hash in the child", hash, 7919, 700, 1);
    receives("the deleted queue, in the child", deleted, "three", 4);
    tree_report(0);
  }
  tree_await("child");

  check_ready();

  tree_collect("child");
  tree_wait(child, 0);
  if (maps) {
    for (uint32_t i = 0; i < 300; i++) has("the hash", hash, i * 7919, 700, i);
    for (uint32_t i = 0; i < 50; i += 3) has("the array", array, i, 12, 1000 + i);
    char value[1024], zeros[12] = {0};
    CHECK_EQ("lookup of what is not there", -1, element(BPF_MAP_LOOKUP_ELEM, hash, 1, value));
    CHECK_EQ("an element that was not set", 0, element(BPF_MAP_LOOKUP_ELEM, array, 1, value));
    CHECK_BYTES("it", zeros, value, 12);
    struct bpf_map_info info = info_of(hash);
    CHECK_STRING("name", "a_hash", info.name);
    CHECK_EQ("entries", 1000, info.max_entries);
    CHECK_EQ("flags", BPF_F_NO_PREALLOC, info.map_flags);
    CHECK_EQ("one map by two open files", info.id, info_of(same).id);
    CHECK_EQ("one map by three open files", info.id, info_of(reader).id);
    has("the hash by its reader", reader, 7919, 700, 1);
    CHECK_EQ("write by the reader", -1, element(BPF_MAP_UPDATE_ELEM, reader, 7919, value));
    CHECK_EQ("its error", EPERM, errno);
    put(same, 4711, 700, 5000), has("what the other file has written", hash, 4711, 700, 5000);
    CHECK_EQ("FD_CLOEXEC", 0, fcntl(same, F_GETFD));
    has("the frozen one", fixed, 5, 8, 2000);
    CHECK_EQ("write to the frozen one", -1, element(BPF_MAP_UPDATE_ELEM, fixed, 5, value));
  }
  CHECK_EQ("attributes", 0, mq_getattr(named, &found));
  CHECK_EQ("O_NONBLOCK", O_NONBLOCK, found.mq_flags);
  CHECK_EQ("messages", 5, found.mq_curmsgs);
  CHECK_EQ("most messages", 7, found.mq_maxmsg);
  CHECK_EQ("largest message", 200, found.mq_msgsize);
  CHECK_EQ("attributes of the writer", 0, mq_getattr(writer, &found));
  CHECK_EQ("O_NONBLOCK of the writer", 0, found.mq_flags);
  struct stat st = {0};
  CHECK_EQ("fstat", 0, fstat(named, &st));
  CHECK_EQ("permissions", 0100640, st.st_mode);
  send(writer, "new", 5);
  receives("the queue", named, "of nine", 9), receives("the queue", named, "first of five", 5);
  receives("the queue", named, "second of five", 5), receives("the queue", named, "", 5);
  receives("the queue", named, "new", 5), receives("the queue", named, "of none", 0);
  char byte[200];
  CHECK_EQ("receive from the empty one", -1, mq_receive(named, byte, sizeof(byte), NULL));
  CHECK_EQ("receive by the writer", -1, mq_receive(writer, byte, sizeof(byte), NULL));
  receives("the deleted queue", deleted, "one", 3), receives("the deleted queue", deleted, "two", 3);
  CHECK_EQ("no name", -1, mq_open(gone, O_RDONLY));
  CHECK_EQ("receive from the one that was empty", -1, mq_receive(empty, byte, sizeof(byte), NULL));
  CHECK_EQ("the name of the queue", 0, mq_unlink(name));
  CHECK_EQ("the name of the empty one", 0, mq_unlink(other));
  return check_finish();
}
