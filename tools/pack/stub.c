/*
 * The stub of the packed binary: the first code of dist/ckpt that runs when
 * that file is the Deno executable with a payload (see pack.ts).
 *
 * The kernel maps the payload with the program, the dynamic linker relocates
 * Deno and jumps here instead of to Deno's entry point. The stub copies two
 * parts of the payload (the program in JavaScript and libckpt.so) into memfds,
 * so nothing is ever unpacked to a disk, and starts Deno on a stack that reads
 * as if the user had typed
 *
 *   deno run -A ... 'data:text/javascript,LOADER' ARGUMENTS
 *
 * The loader is one line that evaluates the program. Evaluated text goes to
 * V8 alone; a module of the same size would first be parsed by Deno, too, at
 * every start (35 ms for 300 KB). A variable of the environment tells it where
 * the program is, and what lib/ffi/library_path.ts wants to know: the
 * descriptor of the library, and the soft RLIMIT_NOFILE that Deno is about to
 * raise. The loader itself is always the same, so that it can be in the cache.
 *
 * The third part of the payload is the program as V8 has compiled it, in the
 * form of Deno's own cache of such things (code_cache.ts). Compiling is half
 * of what a small dump costs. Deno looks for that cache in a directory, and
 * here there is none: a function of the stub answers when Deno opens the file.
 *
 * Freestanding: no libc, no relocations, no writable data.
 */

typedef unsigned long u64;

/* A bundle with all of ckpt, and smaller ones for the commands that have to be
   fast. */
enum { ALL, DUMP, RESTORE, PROGRAMS };

/* Filled in by pack.ts. Distances are in bytes from the header. */
struct header {
  char magic[8];
  long deno_entry;
  u64 library_offset, library_size;
  struct {
    u64 text_offset, text_size;
    u64 cache_offset, cache_size;
  } program[PROGRAMS];
  /* Of words that the dynamic linker has filled: &environ (libc's), and the
     addresses of functions of libc, by which Deno calls them. */
  long environ_slot;
  long open64_slot, openat64_slot, xstat64_slot, fxstatat64_slot;
  u64 reserved;
};

__attribute__((section(".header"), used))
const volatile struct header header = { .magic = "ckptpack" };

/*
 * At entry (x86-64 psABI, "Process Initialization"): rsp points at argc, rdx
 * holds the function that the program registers with atexit. Both are handed
 * on as found, with rsp moved below the new vector.
 */
__asm__(
  ".section .text.entry, \"ax\"\n"
  ".globl _start\n"
  "_start:\n"
  "  mov %rsp, %rbx\n"
  "  mov %rdx, %r12\n"
  "  mov %rbx, %rdi\n"
  "  and $-16, %rsp\n"
  "  call room\n"
  "  sub %rax, %rsp\n"
  "  mov %rbx, %rdi\n"
  "  mov %rsp, %rsi\n"
  "  call prepare\n"
  "  mov %r12, %rdx\n"
  "  xor %ebp, %ebp\n"
  "  jmp *%rax\n"
  ".text\n");

enum {
  SYS_WRITE = 1,
  SYS_CLOSE = 3,
  SYS_MPROTECT = 10,
  SYS_RT_SIGPROCMASK = 14,
  SYS_ACCESS = 21,
  SYS_FCNTL = 72,
  SYS_GETCWD = 79,
  SYS_EXIT_GROUP = 231,
  SYS_PRLIMIT64 = 302,
  SYS_MEMFD_CREATE = 319,

  ENOENT = 2,
  EINTR = 4,
  EBADF = 9,
  EINVAL = 22,
  AT_FDCWD = -100,
  F_DUPFD_CLOEXEC = 1030,
  MFD_CLOEXEC = 1,
  MFD_NOEXEC_SEAL = 8,
  O_CREAT = 0100,
  PAGE = 4096,
  PROT_READ = 1,
  PROT_WRITE = 2,
  RLIMIT_FSIZE = 1,
  RLIMIT_DATA = 2,
  RLIMIT_NOFILE = 7,
  RLIMIT_MEMLOCK = 8,
  RLIMIT_AS = 9,
  RLIMIT_SIGPENDING = 11,
  RLIMIT_MSGQUEUE = 12,
};

/* V8 keeps 32 GiB of addresses free for itself; Deno and a program's files need some, too. */
#define ADDRESSES (40UL << 30)

static long syscall4(long number, long a, long b, long c, long d) {
  register long r10 __asm__("r10") = d;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
}

static u64 length(const char *text) {
  u64 n = 0;
  while (text[n]) n++;
  return n;
}

static char *append(char *to, const char *text) {
  while (*text) *to++ = *text++;
  *to = 0;
  return to;
}

static char *append_number(char *to, u64 value) {
  char digits[24];
  int i = sizeof digits;
  digits[--i] = 0;
  do digits[--i] = '0' + value % 10; while (value /= 10);
  return append(to, digits + i);
}

static void say(const char *text) {
  syscall4(SYS_WRITE, 2, (long)text, length(text), 0);
}

/* Exit code 1: "the kernel or the host refused something" (lib/error.ts). */
__attribute__((noreturn))
static void fail(const char *what, long error) {
  char text[32];
  say("ckpt: cannot start: ");
  say(what);
  if (error) {
    append(append_number(append(text, " (errno "), -error), ")");
    say(text);
  }
  say("\n");
  for (;;) syscall4(SYS_EXIT_GROUP, 1, 0, 0, 0);
}

static long empty_memfd(const char *name) {
  /* NOEXEC_SEAL is unknown before Linux 6.3, and demanded where the sysctl
     vm.memfd_noexec is 2; it forbids execve, not what dlopen does. */
  long fd = syscall4(SYS_MEMFD_CREATE, (long)name,
                     MFD_CLOEXEC | MFD_NOEXEC_SEAL, 0, 0);
  if (fd == -EINVAL)
    fd = syscall4(SYS_MEMFD_CREATE, (long)name, MFD_CLOEXEC, 0, 0);
  return fd;
}

/* Returns 0, or a negative errno. */
static long write_all(long fd, const char *start, u64 size) {
  while (size) {
    long n = syscall4(SYS_WRITE, fd, (long)start, size, 0);
    if (n == -EINTR) continue;
    if (n < 0) return n;
    start += n;
    size -= n;
  }
  return 0;
}

/* The version is told without Deno: scripts ask for it. To whom closed the
   standard output, nothing is to be told. */
__attribute__((noreturn))
static void tell_version(void) {
  static const char text[] = "ckpt " CKPT_VERSION "\n";
  long error = write_all(1, text, sizeof text - 1);
  if (error < 0 && error != -EBADF) fail("writing the version", error);
  for (;;) syscall4(SYS_EXIT_GROUP, 0, 0, 0, 0);
}

/*
 * Lets the kernel make room for that many descriptors. When there are threads,
 * it waits for all processors each time that the table doubles.
 */
#define DESCRIPTORS 1024ul

static void make_room(long fd, u64 limit) {
  u64 last = (limit < DESCRIPTORS ? limit : DESCRIPTORS) - 1;
  long high = syscall4(SYS_FCNTL, fd, F_DUPFD_CLOEXEC, (long)last, 0);
  if (high >= 0) syscall4(SYS_CLOSE, high, 0, 0, 0);
}

/*
 * Takes what it may have: of addresses, for without them V8 dies of a trap that
 * tells nobody why, of the size of files, and of what is made for a program
 * before that gets the limits it had.
 */
static void raise_limits(void) {
  const unsigned char limits[] = { RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_MEMLOCK,
                                   RLIMIT_AS, RLIMIT_SIGPENDING,
                                   RLIMIT_MSGQUEUE };
  for (u64 i = 0; i < sizeof limits; i++) {
    u64 limit[2] = { 0, 0 };
    syscall4(SYS_PRLIMIT64, 0, limits[i], 0, (long)limit);
    if (limits[i] == RLIMIT_AS && limit[1] < ADDRESSES)
      fail("the address space is limited to less than 40 GiB; raise the limit "
           "(ulimit -v unlimited)", 0);
    if (limit[0] == limit[1]) continue;
    limit[0] = limit[1];
    syscall4(SYS_PRLIMIT64, 0, limits[i], (long)limit, 0);
  }
}

/*
 * A memfd that holds `size` bytes from `start`. Descriptors stay as low as
 * they come, so a small RLIMIT_NOFILE does no harm, but never take the place
 * of a standard stream that the caller has closed.
 */
static long memfd_of(const char *name, const char *start, u64 size) {
  long fd = empty_memfd(name);
  if (fd < 0) fail("memfd_create", fd);
  if (fd < 3) {
    long higher = syscall4(SYS_FCNTL, fd, F_DUPFD_CLOEXEC, 3, 0);
    if (higher < 0) fail("fcntl F_DUPFD_CLOEXEC", higher);
    syscall4(SYS_CLOSE, fd, 0, 0, 0);
    fd = higher;
  }
  long error = write_all(fd, start, size);
  if (error < 0) fail("writing a memfd", error);
  return fd;
}

/*
 * Deno's options; the program and its arguments follow. V8 gets as much room
 * for new objects as a dump of a small program needs, or it would move them
 * two or three times, 1 ms each, maybe while the program stands still. It
 * compiles for speed what runs four times as often as it would by itself: in a
 * small dump nothing does, and its threads would take 10 to 20 ms of the
 * processors from all others. The compiler for what runs for long is never
 * used: of 10,000 files it takes 150 ms, and nothing runs long enough to bring
 * these back. The old objects are not marked before they are
 * more than those of a tree of 100. code_cache.ts looks for the flags.
 */
#define V8_FLAGS                                                            \
  "--v8-flags=--min-semi-space-size=16"                                     \
  ",--initial-old-space-size=64"                                            \
  ",--invocation-count-for-maglev=1600"                                     \
  ",--invocation-count-for-maglev-osr=400"                                  \
  ",--no-turbofan"

#define ARGUMENTS(X)                                                        \
  X("deno") X("run") X("--quiet") X("--allow-all") X("--no-config")         \
  X("--no-lock") X("--no-remote") X("--no-npm") X("--cached-only")          \
  X("--no-check") X(V8_FLAGS)

/*
 * Variables of the user's that would change how Deno itself behaves, or lead
 * it to files of the user's that have nothing to do with ckpt (~/.npmrc). Deno
 * gets them under another name; the loader gives them their own name back, so
 * that the program, and what it starts, sees the environment as it was.
 */
#define KEPT(X)                                                             \
  X("HOME=") X("DENO_") X("NODE_") X("NPM_") X("OTEL_") X("RUST_")

#define KEPT_PREFIX "_CKPT_KEPT_"

/*
 * What Deno gets instead: no look for a newer Deno, no stand-in for node, and
 * for its caches a directory that nobody can make. The loader removes these.
 */
#define NOWHERE "/proc/none"
#define ADDED(X)                                                            \
  X("HOME", NOWHERE) X("DENO_NO_UPDATE_CHECK", "1")                         \
  X("DENO_DISABLE_NODE_SHIM", "1") X("DENO_LOG", "off")

/* For the loader: "/proc/self/fd/PROGRAM LIBRARY NOFILE". */
#define START "_CKPT_START"

/*
 * Without Deno's internals, or where V8 refuses what was compiled, the program
 * is compiled as if there were no cache. code_cache.ts looks for the URL.
 */
#define QUOTED(name, value) "'" name "',"
#define LOADER                                                              \
  "data:text/javascript,"                                                   \
  "const e=Deno.env,[p,l,n]=e.get('" START "').split(' ');"                 \
  "globalThis.ckptStart={library:l,nofile:n};"                              \
  "for(const n of['" START "','DENO_DIR'," ADDED(QUOTED) "])e.delete(n);"   \
  "for(const[n,v]of Object.entries(e.toObject()))"                          \
  "if(n.startsWith('" KEPT_PREFIX "'))"                                     \
  "e.delete(n),e.set(n.slice('" KEPT_PREFIX "'.length),v);"                 \
  "const c=Deno[Deno.internal]?.core?.evalContext||(t=>[(0,eval)(t)]);"     \
  "const[,f]=c(Deno.readTextFileSync(p),'file:///ckpt.js');"                \
  "if(f)throw f.thrown"

#define COUNT(...) +1
enum { ARGUMENT_COUNT = 0 ARGUMENTS(COUNT), ADDED_COUNT = 0 ADDED(COUNT) };

/* Room for the variables that prepare writes. */
enum { START_ROOM = 150 };

static int begins(const char *text, const char *with) {
  while (*with)
    if (*text++ != *with++) return 0;
  return 1;
}

static int equal(const char *text, const char *with) {
  return begins(text, with) && length(text) == length(with);
}

static int kept(const char *variable) {
#define TEST(prefix) || begins(variable, prefix)
  return 0 KEPT(TEST);
}

/* Length of the new vector: what the old one has, and what is added. */
static u64 vector_words(const u64 *old) {
  const u64 *p = old + 1 + old[0] + 1;
  while (*p) p++;
  for (p++; p[0]; p += 2) {}
  return p + 2 - old + ARGUMENT_COUNT + 1 + ADDED_COUNT + 2;
}

/* Bytes that the new vector and its new strings need below the old one. */
__attribute__((used)) u64 room(const u64 *old) {
  u64 strings = START_ROOM;
  const u64 *p = old + 1 + old[0] + 1;
  for (; *p; p++)
    if (kept((const char *)*p))
      strings += sizeof KEPT_PREFIX + length((const char *)*p);
  return (vector_words(old) * sizeof(u64) + strings + 15) & ~15ul;
}

/*
 * The file in DENO_DIR where Deno keeps what V8 has compiled: a database of
 * SQLite, which makes files beside it ("-wal", "-shm") and asks for the
 * permissions of the first to give them to the others. The functions below
 * stand in for those of libc where Deno calls them, in any thread. Where the
 * kernel refuses a memfd, Deno finds no cache and does without.
 */
#define CACHE "/v8_code_cache_v2"

/* What follows the name of the cache in a path; null in any other path. */
static const char *after_cache(const char *path, int *program) {
  if (!begins(path, NOWHERE "/")) return 0;
  path += sizeof NOWHERE;
  *program = *path++ - '0';
  if (*program < 0 || *program >= PROGRAMS || !begins(path, CACHE)) return 0;
  return path + sizeof CACHE - 1;
}

#define LIBC(type, name)                                                    \
  (*(type **)((const char *)&header + header.name##_slot))

typedef int openat64_(int directory, const char *path, int flags,
                      unsigned mode);
typedef int fxstatat64_(int version, int directory, const char *path,
                        void *status, int flags);

static long cache_file(const char *beside, int flags, int program) {
  if (*beside) return flags & O_CREAT ? empty_memfd("ckpt.cache-journal") : -1;
  long fd = empty_memfd("ckpt.cache");
  if (fd < 0) return fd;
  const char *base = (const char *)&header;
  long error = write_all(fd, base + header.program[program].cache_offset,
                         header.program[program].cache_size);
  if (error == 0) return fd;
  syscall4(SYS_CLOSE, fd, 0, 0, 0);
  return error;
}

static int open64(const char *path, int flags, unsigned mode) {
  int program;
  const char *beside = after_cache(path, &program);
  if (beside) {
    long fd = cache_file(beside, flags, program);
    if (fd >= 0) return fd;
  }
  return LIBC(openat64_, openat64)(AT_FDCWD, path, flags, mode);
}

/* stat(2), as libc called it until 2.33. */
static int xstat64(int version, const char *path, void *status) {
  int program;
  const char *beside = after_cache(path, &program);
  if (beside && !*beside) path = "/proc/self/exe";
  return LIBC(fxstatat64_, fxstatat64)(version, AT_FDCWD, path, status, 0);
}

/* The dynamic linker has made the page of the word read-only by now. */
static void stand_in(long slot, u64 function) {
  u64 word = (u64)&header + slot;
  u64 page = word & -PAGE;
  if (syscall4(SYS_MPROTECT, page, PAGE, PROT_READ | PROT_WRITE, 0) < 0)
    return;
  *(u64 *)word = function;
  syscall4(SYS_MPROTECT, page, PAGE, PROT_READ, 0);
}

/* By the first argument: wherever else the command is, ALL can do it, too. */
static int program_for(const u64 *old) {
  if (old[0] < 2) return ALL;
  const char *command = (const char *)old[2];
  return equal(command, "dump") ? DUMP
       : equal(command, "restore") ? RESTORE : ALL;
}

/*
 * Fills the new vector: argc, argv, NULL, environment, NULL, auxiliary
 * vector. The user's strings stay where the kernel put them, and so do
 * /proc/self/cmdline and /proc/self/environ.
 * Returns Deno's own entry point.
 */
__attribute__((used)) u64 prepare(const u64 *old, u64 *new) {
  const char *base = (const char *)&header;
  u64 limit[2] = { 0, 0 };
  u64 debugger = 1 << (10 - 1); /* SIGUSR1 */
  char directory[4096];

  if (old[0] == 2 && equal((const char *)old[2], "--version")) tell_version();
  if (syscall4(SYS_GETCWD, (long)directory, sizeof directory, 0, 0) == -ENOENT)
    fail("the current directory no longer exists; change to one that does", 0);
  if (syscall4(SYS_ACCESS, (long)"/proc/self/fd", 0, 0, 0) < 0)
    fail("/proc is not mounted; mount it", 0);
  syscall4(SYS_PRLIMIT64, 0, RLIMIT_NOFILE, 0, (long)limit);
  raise_limits();
  /*
   * Deno opens a debugger for anybody on this host when it gets SIGUSR1. So it
   * never gets it; lib/restore/wait.ts passes it on all the same. No other is
   * blocked: daemons that take theirs by sigwait(3) forget it of their children.
   */
  syscall4(SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, (long)&debugger, 0, 8);

  int which = program_for(old);
  long program = memfd_of("ckpt.js", base + header.program[which].text_offset,
                          header.program[which].text_size);
  long library = memfd_of("libckpt.so", base + header.library_offset,
                          header.library_size);

  make_room(library, limit[0]);

  stand_in(header.xstat64_slot, (u64)xstat64);
  stand_in(header.open64_slot, (u64)open64);

  u64 *to = new;
  char *text = (char *)(new + vector_words(old));
  const u64 *from = old + 1;
  u64 arguments = old[0];
  *to++ = 0; /* argc, known at the end */
#define PUT(argument) *to++ = (u64)argument;
  ARGUMENTS(PUT)
  *to++ = (u64)LOADER;
  if (arguments > 0) from++; /* the name ckpt was called by */
  for (; *from; from++) *to++ = *from;
  new[0] = to - new - 1;
  *to++ = *from++;
  /* libc took the address of the old environment before we ran. */
  **(u64 ***)(base + header.environ_slot) = to;
  for (; *from; from++) {
    const char *variable = (const char *)*from;
    *to++ = kept(variable) ? (u64)text : *from;
    if (kept(variable)) text = append(append(text, KEPT_PREFIX), variable) + 1;
  }
#define PUT_VARIABLE(name, value) *to++ = (u64)(name "=" value);
  ADDED(PUT_VARIABLE)
  *to++ = (u64)text;
  text = append_number(append(text, START "=/proc/self/fd/"), program);
  text = append_number(append(text, " "), library);
  text = append_number(append(text, " "), limit[0]) + 1;
  *to++ = (u64)text;
  append_number(append(text, "DENO_DIR=" NOWHERE "/"), which);
  *to++ = *from++;
  for (; from[0]; from += 2) {
    *to++ = from[0];
    *to++ = from[1];
  }
  *to++ = 0;
  *to++ = 0;

  return (u64)base + header.deno_entry;
}
