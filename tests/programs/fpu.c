/*
 * All of XSAVE that user programs may use: x87, SSE, AVX, AVX-512, PKRU. One thread holds the state while it runs,
 * one while it is in a system call; each has values of its own. AMX is left out: it needs a permission first.
 */
#include "check.h"
#include <cpuid.h>
#include <linux/futex.h>

#define AREA 16384
static uint64_t mask;
static unsigned area_size;

struct holder {
  unsigned char in[AREA] __attribute__((aligned(64)));
  unsigned char start[AREA] __attribute__((aligned(64)));
  unsigned char end[AREA] __attribute__((aligned(64)));
  atomic_int tid;
  int word;
  long result;
};
static struct holder running, waiting;
static int leave;

/*
 * The assembly saves the state right after it is loaded and once more at the end; nothing in between touches it.
 * hold_running(in, start, end, mask, &leave); hold_waiting(in, start, end, mask, &word)
 */
void hold_running(void *, void *, void *, uint64_t, int *);
long hold_waiting(void *, void *, void *, uint64_t, int *);
asm(R"(
  .text
  .globl hold_running, hold_waiting
  .macro begin
    push %rbx; push %r12; push %r13; push %r14
    mov %rsi, %r12; mov %rdx, %r13; mov %rcx, %r14; mov %r8, %rbx
    mov %r14d, %eax; mov %r14, %rdx; shr $32, %rdx
    xrstor64 (%rdi)
    xsave64 (%r12)
  .endm
  .macro finish
    mov %r14d, %eax; mov %r14, %rdx; shr $32, %rdx
    xsave64 (%r13)
    # leave C the state it expects
    fninit
    pushq $0x1f80
    ldmxcsr (%rsp)
    pop %rax
    bt $9, %r14
    jnc 9f
    xor %ecx, %ecx; xor %edx, %edx; xor %eax, %eax
    .byte 0x0f, 0x01, 0xef    # wrpkru
  9:
    pop %r14; pop %r13; pop %r12; pop %rbx
  .endm
hold_running:
  begin
1: pause
  cmpl $0, (%rbx)
  je 1b
  finish
  ret
hold_waiting:
  begin
  mov $202, %eax
  mov %rbx, %rdi
  xor %esi, %esi; xor %edx, %edx; xor %r10d, %r10d; xor %r8d, %r8d; xor %r9d, %r9d
  syscall
  push %rax
  pop %r8
  push %r8
  mov %r14d, %eax; mov %r14, %rdx; shr $32, %rdx
  xsave64 (%r13)
  pop %r8
  fninit
  pushq $0x1f80
  ldmxcsr (%rsp)
  pop %rax
  bt $9, %r14
  jnc 9f
  xor %ecx, %ecx; xor %edx, %edx; xor %eax, %eax
  .byte 0x0f, 0x01, 0xef
9:
  pop %r14; pop %r13; pop %r12; pop %rbx
  mov %r8, %rax
  ret
)");

static uint64_t xgetbv(void) {
  uint32_t a, d;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return a | (uint64_t)d << 32;
}

static const char *component_name(int i) {
  static const char *const names[] = {"x87", "SSE", "AVX", "BNDREGS", "BNDCSR", "opmask", "ZMM_Hi256", "Hi16_ZMM", "PT", "PKRU"};
  return i < 10 ? names[i] : check_name("component %d", i);
}

static void component(int i, unsigned *offset, unsigned *size) {
  unsigned c, d;
  __cpuid_count(13, i, *size, *offset, c, d);
}

/** Random state in which every register of every component has a value of its own. */
static void build(unsigned char *area, uint64_t seed) {
  memset(area, 0, AREA);
  uint16_t control = 0x0b7f; /* round up, all exceptions masked */
  memcpy(area, &control, 2);
  area[4] = 0xff; /* all eight x87 registers are valid */
  uint32_t mxcsr = 0x7f80 | 0x8000 | 0x20; /* round to zero, flush to zero, inexact raised */
  memcpy(area + 24, &mxcsr, 4);
  for (int i = 0; i < 8; i++) {
    check_fill(area + 32 + 16 * i, 8, seed + i);
    area[32 + 16 * i + 7] |= 0x80; /* a normal number */
    area[32 + 16 * i + 8] = (unsigned char)(0x11 + i);
    area[32 + 16 * i + 9] = 0x40;
  }
  check_fill(area + 160, 256, seed + 20);
  memcpy(area + 512, &mask, 8); /* XSTATE_BV */
  for (int i = 2; i < 63; i++)
    if (mask >> i & 1) {
      unsigned offset, size;
      component(i, &offset, &size);
      if (i == 9) {
        uint32_t pkru = 0x55555554 ^ (uint32_t)(seed & 1) << 5;
        memcpy(area + offset, &pkru, 4);
      } else {
        check_fill(area + offset, size, seed + 30 + i);
      }
    }
}

static void *run(void *argument) {
  struct holder *h = argument;
  atomic_store(&h->tid, check_tid());
  if (h == &running)
    hold_running(h->in, h->start, h->end, mask, &leave);
  else
    h->result = hold_waiting(h->in, h->start, h->end, mask, &h->word);
  return NULL;
}

static void compare(const char *who, struct holder *h) {
  CHECK_BYTES("XSTATE_BV of the %s thread", h->start + 512, h->end + 512, 8, who);
  CHECK_BYTES("x87 and MXCSR of the %s thread", h->start, h->end, 160, who);
  CHECK_BYTES("SSE of the %s thread", h->start + 160, h->end + 160, 256, who);
  for (int i = 2; i < 63; i++)
    if (mask >> i & 1) {
      unsigned offset, size;
      component(i, &offset, &size);
      CHECK_BYTES("%s of the %s thread", h->start + offset, h->end + offset, size, component_name(i), who);
    }
}

int main(int argc, char **argv) {
  check_start(argc, argv);
  unsigned a, b, c, d;
  __cpuid(1, a, b, c, d);
  if (!(c & bit_OSXSAVE)) check_die("this processor has no XSAVE");
  mask = xgetbv() & ~(3ull << 17) & ~(1ull << 8) & ~(3ull << 3);
  __cpuid_count(13, 0, a, area_size, c, d);
  if (area_size > AREA) check_die("XSAVE needs %u bytes", area_size);
  for (int i = 5; i < 10; i++)
    if (i != 8 && !(mask >> i & 1)) check_note("this processor has no %s", component_name(i));
  build(running.in, 100);
  build(waiting.in, 201);
  pthread_t threads[2];
  MUST0(pthread_create(&threads[0], NULL, run, &running));
  MUST0(pthread_create(&threads[1], NULL, run, &waiting));
  while (!atomic_load(&running.tid) || !atomic_load(&waiting.tid)) check_sleep_ms(1);
  check_until_asleep(waiting.tid);
  check_sleep_ms(20);

  check_ready();

  __atomic_store_n(&leave, 1, __ATOMIC_SEQ_CST);
  pthread_join(threads[0], NULL);
  /* more than once, for the call may be about to be restarted */
  do syscall(SYS_futex, &waiting.word, FUTEX_WAKE, 1, NULL, NULL, 0), check_sleep_ms(1);
  while (pthread_tryjoin_np(threads[1], NULL) == EBUSY);
  CHECK("the state that was built is the state that was loaded",
        !memcmp(running.in + 160, running.start + 160, 256) && !memcmp(waiting.in + 160, waiting.start + 160, 256));
  compare("running", &running);
  compare("waiting", &waiting);
  CHECK_EQ("value of futex", 0, waiting.result);
  return check_finish();
}
