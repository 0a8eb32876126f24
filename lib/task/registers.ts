/**
 * General registers: the kernel's struct user_regs_struct (regset NT_PRSTATUS
 * as ptrace gives it) and the image's user_x86_regs_entry.
 */
import type { Program } from "../ffi/program.ts";
import { CkptError, EXIT } from "../error.ts";
import {
  type user_x86_regs_entry,
  user_x86_regs_mode,
} from "../image/schema.gen.ts";

/** Index of each register in user_regs_struct (sys/user.h). */
export const REGISTER = {
  r15: 0,
  r14: 1,
  r13: 2,
  r12: 3,
  rbp: 4,
  rbx: 5,
  r11: 6,
  r10: 7,
  r9: 8,
  r8: 9,
  rax: 10,
  rcx: 11,
  rdx: 12,
  rsi: 13,
  rdi: 14,
  origRax: 15,
  rip: 16,
  cs: 17,
  eflags: 18,
  rsp: 19,
  ss: 20,
  fsBase: 21,
  gsBase: 22,
  ds: 23,
  es: 24,
  fs: 25,
  gs: 26,
} as const;

export const REGISTER_COUNT = 27;

/** orig_rax of a thread that is in no system call, as an unsigned word. */
export const NO_CALL = 0xffff_ffff_ffff_ffffn;

/** Selectors of 64-bit programs and of their stack (asm/segment.h). */
const USER_CS = 0x33n;
const USER_DS = 0x2bn;
/** The code selector of 32-bit programs. */
const USER32_CS = 0x23n;

/** The fields of the message in the order of user_regs_struct. */
const FIELDS = [
  "r15",
  "r14",
  "r13",
  "r12",
  "bp",
  "bx",
  "r11",
  "r10",
  "r9",
  "r8",
  "ax",
  "cx",
  "dx",
  "si",
  "di",
  "orig_ax",
  "ip",
  "cs",
  "flags",
  "sp",
  "ss",
  "fs_base",
  "gs_base",
  "ds",
  "es",
  "fs",
  "gs",
] as const;

/**
 * @param raw 27 words, wound back by `interruptedCall` before
 * @throws CkptError refused, for a thread that executes 32-bit code
 */
export function registersEntry(
  raw: BigUint64Array,
  tid: number,
): user_x86_regs_entry {
  if (raw[REGISTER.cs] === USER32_CS) {
    throw refused("saving registers", tid);
  }
  const entry = { mode: user_x86_regs_mode.NATIVE } as user_x86_regs_entry;
  for (let i = 0; i < REGISTER_COUNT; i++) entry[FIELDS[i]] = raw[i];
  return entry;
}

/**
 * The registers with which a thread goes on. orig_rax says that it is in no
 * system call: the image holds registers that need no more care.
 *
 * @param inCall it goes on in the call that orig_rax tells
 * @throws CkptError refused, for a thread that executed 32-bit code
 */
export function rawRegisters(
  entry: user_x86_regs_entry,
  tid: number,
  inCall = false,
): BigUint64Array<ArrayBuffer> {
  if (entry.mode === user_x86_regs_mode.COMPAT || entry.cs === USER32_CS) {
    throw refused("restoring registers", tid);
  }
  const raw = new BigUint64Array(REGISTER_COUNT);
  for (let i = 0; i < REGISTER_COUNT; i++) raw[i] = entry[FIELDS[i]];
  if (!inCall) raw[REGISTER.origRax] = NO_CALL;
  // The kernel takes no zero here (putreg in arch/x86/kernel/ptrace.c).
  if (raw[REGISTER.cs] === 0n) raw[REGISTER.cs] = USER_CS;
  if (raw[REGISTER.ss] === 0n) raw[REGISTER.ss] = USER_DS;
  return raw;
}

function refused(action: string, tid: number): CkptError {
  return new CkptError(EXIT.refused, action, [{
    object: `thread ${tid}`,
    why: "it executes 32-bit code, of which ckpt knows no registers",
  }]);
}

/** The ID flag (CPUID may be used); ptrace leaves it as it is. */
const EFLAGS_ID = 1n << 21n;

/** What of the flags only the thread itself can set. */
export function restoreFlags(
  program: Program,
  { flags }: user_x86_regs_entry,
): void {
  if ((flags & EFLAGS_ID) !== 0n) {
    program.call("flags", [EFLAGS_ID], "setting the ID flag");
  }
}
