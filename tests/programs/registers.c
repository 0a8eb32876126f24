/*
 * Every general purpose register, the flags and the red zone, of threads that run in user mode and of one that is
 * inside a system call.
 */
#include "check.h"
#include <linux/futex.h>

/** What the assembly reads and writes; its offsets are written out there. */
struct block {
  uint64_t in[15];   /* rax rbx rcx rdx rsi rdi rbp r8 … r15 */
  uint64_t out[15];  /* offset 120 */
  uint64_t red[16];  /* offset 240: what was found in the red zone */
  uint64_t stack;    /* offset 368: rsp, as it was and as it is afterwards */
  uint64_t stack_out;/* offset 376 */
  uint64_t flags_in; /* offset 384 */
  uint64_t flags_out;/* offset 392 */
};

int leave_spin __attribute__((visibility("hidden")));
struct block *red_zone_block __attribute__((visibility("hidden")));

/** Keeps in[] in all registers and turns until leave_spin is set, then writes out[]. */
void spin(struct block *);
/** Keeps flags_in in the flags, and known values in the red zone. */
void spin_flags(struct block *);
/** Keeps in[] in all registers across futex(FUTEX_WAIT); rcx and r11 are the system call's. */
long block_in_futex(struct block *, int *word);

asm(R"(
  .macro save_all
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  .endm
  .macro restore_all
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  .endm
  .macro load_all
    mov 0(%rdi), %rax;  mov 8(%rdi), %rbx;   mov 16(%rdi), %rcx;  mov 24(%rdi), %rdx
    mov 32(%rdi), %rsi; mov 48(%rdi), %rbp;  mov 56(%rdi), %r8;   mov 64(%rdi), %r9
    mov 72(%rdi), %r10; mov 80(%rdi), %r11;  mov 88(%rdi), %r12;  mov 96(%rdi), %r13
    mov 104(%rdi), %r14; mov 112(%rdi), %r15; mov 40(%rdi), %rdi
  .endm
  .macro store_all   # the block's address is on the top of the stack; rdi is saved there
    xchg %rdi, (%rsp)
    mov %rax, 120(%rdi); mov %rbx, 128(%rdi); mov %rcx, 136(%rdi); mov %rdx, 144(%rdi)
    mov %rsi, 152(%rdi); mov %rbp, 168(%rdi); mov %r8, 176(%rdi);  mov %r9, 184(%rdi)
    mov %r10, 192(%rdi); mov %r11, 200(%rdi); mov %r12, 208(%rdi); mov %r13, 216(%rdi)
    mov %r14, 224(%rdi); mov %r15, 232(%rdi)
    mov %rsp, 376(%rdi)
    pop %rax; mov %rax, 160(%rdi)
  .endm
  .text
  .globl spin, spin_flags, block_in_futex
spin:
  save_all
  push %rdi
  mov %rsp, 368(%rdi)
  load_all
1: pause
  cmpl $0, leave_spin(%rip)
  je 1b
  store_all
  restore_all
  ret

spin_flags:
  save_all
  push %rdi
  mov %rsp, 368(%rdi)
  # the red zone: 128 bytes below the stack pointer belong to the function
  mov $16, %rcx
2: movabs $0x1122334455667700, %rax
  add %rcx, %rax
  mov %rcx, %rdx
  neg %rdx
  mov %rax, (%rsp,%rdx,8)
  dec %rcx
  jnz 2b
  mov (%rsp), %rdi
  mov 384(%rdi), %rax
  # popfq needs the stack: through a place that is not the red zone
  lea flags_stack_end(%rip), %rdx
  xchg %rsp, %rdx
  push %rax
  popfq
  xchg %rsp, %rdx
3: pause
  movslq leave_spin(%rip), %rcx
  jrcxz 3b
  xchg %rsp, %rdx
  pushfq
  pop %rax
  xchg %rsp, %rdx
  cld
  mov %rax, 392(%rdi)
  # clear AC again before C code runs
  lea flags_stack_end(%rip), %rdx
  xchg %rsp, %rdx
  pushq $0x202
  popfq
  xchg %rsp, %rdx
  mov %rsp, 376(%rdi)
  mov $16, %rcx
4: mov %rcx, %rdx
  neg %rdx
  mov (%rsp,%rdx,8), %rax
  mov %rax, 232(%rdi,%rcx,8)
  dec %rcx
  jnz 4b
  pop %rdi
  restore_all
  ret

block_in_futex:
  save_all
  push %rdi
  mov %rsp, 368(%rdi)
  # futex(word, FUTEX_WAIT, 0, NULL, 0, 0): rsi is the word now
  push %rsi
  mov 16(%rdi), %rcx; mov 8(%rdi), %rbx; mov 48(%rdi), %rbp; mov 80(%rdi), %r11
  mov 88(%rdi), %r12; mov 96(%rdi), %r13; mov 104(%rdi), %r14; mov 112(%rdi), %r15
  pop %rdi
  mov $202, %eax
  xor %esi, %esi
  xor %edx, %edx
  xor %r10d, %r10d
  xor %r8d, %r8d
  mov $0x99, %r9d
  syscall
  store_all
  mov 120(%rdi), %rax
  restore_all
  ret

  .bss
  .align 16
  .skip 256
flags_stack_end:
  .skip 16
  .text
)");

static struct block user, flags, blocked;
static int word;
static long futex_result;
static atomic_int tids[3];

static void *run_spin(void *unused) {
  (void)unused;
  atomic_store(&tids[0], check_tid());
  spin(&user);
  return NULL;
}
static void *run_flags(void *unused) {
  (void)unused;
  atomic_store(&tids[1], check_tid());
  spin_flags(&flags);
  return NULL;
}
static void *run_blocked(void *unused) {
  (void)unused;
  atomic_store(&tids[2], check_tid());
  futex_result = block_in_futex(&blocked, &word);
  return NULL;
}

int main(int argc, char **argv) {
  static const char *const names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8",
                                      "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  check_start(argc, argv);
  for (int i = 0; i < 15; i++) {
    user.in[i] = 0xa5a5000011110000u + (uint64_t)i * 0x0101010101u;
    blocked.in[i] = 0x5a5a000022220000u + (uint64_t)i * 0x0101010101u;
  }
  /* a value that looks like an interrupted system call must not be taken for one */
  user.in[0] = (uint64_t)-512;
  /* ID, which no tracer can set, AC, DF, OF, SF, ZF, AF, PF, CF and the two bits that are always set */
  flags.flags_in = 0x200000 | 0x40000 | 0x400 | 0x800 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | 0x202;
  pthread_t threads[3];
  MUST0(pthread_create(&threads[0], NULL, run_spin, NULL));
  MUST0(pthread_create(&threads[1], NULL, run_flags, NULL));
  MUST0(pthread_create(&threads[2], NULL, run_blocked, NULL));
  for (int i = 0; i < 3; i++)
    while (!atomic_load(&tids[i])) check_sleep_ms(1);
  check_until_asleep(tids[2]);
  check_sleep_ms(20);

  check_ready();

  __atomic_store_n(&leave_spin, 1, __ATOMIC_SEQ_CST);
  for (int i = 0; i < 2; i++) MUST0(pthread_join(threads[i], NULL));
  /* more than once, for the call may be about to be restarted */
  do syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0), check_sleep_ms(1);
  while (pthread_tryjoin_np(threads[2], NULL) == EBUSY);
  for (int i = 0; i < 15; i++) CHECK_EQ("%s of a running thread", user.in[i], user.out[i], names[i]);
  CHECK_EQ("rsp of a running thread", user.stack, user.stack_out);
  CHECK_EQ("flags of a running thread", flags.flags_in, flags.flags_out);
  for (int i = 0; i < 16; i++) CHECK_EQ("word %d of the red zone", 0x1122334455667701u + i, flags.red[i], i + 1);
  CHECK_EQ("value of futex", 0, futex_result);
  static const int kept[] = {1, 6, 11, 12, 13, 14};
  for (int i = 0; i < 6; i++)
    CHECK_EQ("%s of a thread in a system call", blocked.in[kept[i]], blocked.out[kept[i]], names[kept[i]]);
  CHECK_EQ("rdi of a thread in a system call", (long)&word, blocked.out[5]);
  CHECK_EQ("r9 of a thread in a system call", 0x99, blocked.out[8]);
  CHECK_EQ("rdx of a thread in a system call", 0, blocked.out[3]);
  CHECK_EQ("rsp of a thread in a system call", blocked.stack, blocked.stack_out);
  return check_finish();
}
