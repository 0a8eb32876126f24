/**
 * A thread that was stopped inside a system call: with which registers does it
 * go on, so that the call begins again as the kernel would let it, and the
 * program never learns that it was stopped?
 *
 * The kernel interrupts the call, leaves one of its private errors in rax and
 * the call's number in orig_rax, and decides when the thread goes on
 * (arch_do_signal_or_restart and handle_signal in arch/x86/kernel/signal.c).
 * What an image holds is decided here, as nobody decides it later.
 */
import { NO_CALL, REGISTER } from "./registers.ts";

/** include/linux/errno.h */
const ERESTARTSYS = -512n;
const ERESTARTNOINTR = -513n;
const ERESTARTNOHAND = -514n;
const ERESTART_RESTARTBLOCK = -516n;
const EINTR = -4n;

const RESTART_SYSCALL = 219n;
/** The same for calls made by `int 0x80` (syscall_32.tbl). */
const RESTART_SYSCALL_32 = 0n;

/** Bytes of `syscall` (0f 05) and of `int $0x80` (cd 80). */
const INSTRUCTION_LENGTH = 2n;

/** How many bytes in front of rip help to know a call. */
export const CODE_LENGTH = 24;

/** Calls that go on by restart_syscall(2), which lets the number be lost. */
const CALL = { poll: 7n, nanosleep: 35n, futex: 202n, clockNanosleep: 230n };

/**
 * What the first signal does that the thread will take when it goes on: a
 * pending one that it does not block and that has a handler. "interrupts": one
 * without SA_RESTART; "restarts": one with it; "none": no handler will run.
 */
export type HandlerToCome = "none" | "restarts" | "interrupts";

/** Signals in bit masks: bit n is signal n + 1. */
export interface SignalsToCome {
  /** Pending for the thread alone (SigPnd of its status). */
  readonly pending: bigint;
  /** Pending for its process (ShdPnd). */
  readonly shared: bigint;
  /** Blocked, as ptrace tells it: without the mask of a call such as ppoll. */
  readonly blocked: bigint;
}

/**
 * The handler that runs first when the thread goes on (dequeue_signal and
 * next_signal in kernel/signal.c: the thread's own signals come first; of
 * these the ones that faults cause, then the lowest number).
 *
 * @param action of a signal by its number: the handler (0n default, 1n
 *   ignored) and the kernel's sa_flags
 */
export function handlerToCome(
  { pending, shared, blocked }: SignalsToCome,
  action: (signal: number) => { handler: bigint; flags: bigint },
): HandlerToCome {
  const SA_RESTART = 0x1000_0000n;
  const FAULTS = [4, 5, 7, 8, 11, 31];
  const FIRST_HANDLER = 2n;
  const all = Array.from({ length: 64 }, (_, i) => i + 1);
  const order = [
    ...FAULTS,
    ...all.filter((signal) => !FAULTS.includes(signal)),
  ];
  for (const queue of [pending, shared]) {
    const deliverable = queue & ~blocked;
    if (deliverable === 0n) continue;
    for (const signal of order) {
      if ((deliverable >> BigInt(signal - 1) & 1n) === 0n) continue;
      const { handler, flags } = action(signal);
      if (handler < FIRST_HANDLER) continue;
      return (flags & SA_RESTART) !== 0n ? "restarts" : "interrupts";
    }
  }
  return "none";
}

export interface ResumedCall {
  /** Registers for the image. */
  image: BigUint64Array<ArrayBuffer>;
  /** Where, and with what in rax, it goes on if ckpt dies. */
  cureRip: bigint;
  cureRax: bigint;
  /**
   * The call was interrupted before, so that only the kernel knows its number,
   * and nothing tells which it was: in the image it ends with EINTR.
   */
  unknown: boolean;
}

/**
 * @param registers 27 words as ptrace gives them; not changed
 * @param handler whether a handler runs before the call can go on
 * @param code reads the {@link CODE_LENGTH} bytes in front of rip, or as many
 *   as there are; called only for an interrupted call
 */
export function resumedCall(
  registers: BigUint64Array<ArrayBuffer>,
  handler: HandlerToCome,
  code: () => Uint8Array,
): ResumedCall {
  const untouched: ResumedCall = {
    image: registers,
    cureRip: registers[REGISTER.rip],
    cureRax: registers[REGISTER.rax],
    unknown: false,
  };
  const number = registers[REGISTER.origRax];
  if (BigInt.asIntN(64, number) < 0n) return untouched;
  const error = BigInt.asIntN(64, registers[REGISTER.rax]);
  // Calls that any stop ends with EINTR were mended when the thread stopped
  // (c/lib/interrupted_call.c): they look like ERESTARTNOHAND.
  if (error > ERESTARTSYS || error < -516n) return untouched;

  const before = code();
  const is32 = endsWith(before, 0xcd, 0x80);
  const rip = registers[REGISTER.rip] - INSTRUCTION_LENGTH;
  const again = (call: bigint) => goingOnAt(registers, rip, call);
  const ended = () => goingOnAt(registers, registers[REGISTER.rip], EINTR);

  switch (error) {
    case ERESTARTSYS:
    case ERESTARTNOINTR:
    case ERESTARTNOHAND: {
      const ends = handler !== "none" && (error === ERESTARTNOHAND ||
        error === ERESTARTSYS && handler === "interrupts");
      return {
        ...untouched,
        image: ends ? ended() : again(number),
        cureRip: rip,
        cureRax: number,
      };
    }
    case ERESTART_RESTARTBLOCK: {
      const restart = is32 ? RESTART_SYSCALL_32 : RESTART_SYSCALL;
      const call = number === restart
        ? restartedCall(registers, before)
        : number;
      return {
        ...untouched,
        image: handler !== "none" || call === undefined ? ended() : again(call),
        cureRip: rip,
        cureRax: restart,
        unknown: handler === "none" && call === undefined,
      };
    }
    default:
      return untouched;
  }
}

/** A copy of the registers, in no system call. */
function goingOnAt(
  registers: BigUint64Array,
  rip: bigint,
  rax: bigint,
): BigUint64Array<ArrayBuffer> {
  const copy = new BigUint64Array(registers);
  copy[REGISTER.rip] = rip;
  copy[REGISTER.rax] = rax;
  copy[REGISTER.origRax] = NO_CALL;
  return copy;
}

/**
 * The call that a thread waits in which was interrupted before and goes on by
 * restart_syscall(2): orig_rax is 219 then, and only the arguments are as they
 * were. The instructions in front of the call tell its number in C libraries
 * that load it as a constant; else the arguments tell, as pointers, flags and
 * counts do not look alike.
 */
function restartedCall(
  registers: BigUint64Array,
  code: Uint8Array,
): bigint | undefined {
  if (!endsWith(code, 0x0f, 0x05)) return undefined;
  return loadedNumber(code) ?? numberFromArguments(registers);
}

function loadedNumber(code: Uint8Array): bigint | undefined {
  const MOV_EAX = 0xb8;
  const REX_B = 0x41; // mov to r8d instead
  const known: readonly bigint[] = Object.values(CALL);
  for (let at = code.length - 7; at >= 0; at--) {
    if (code[at] !== MOV_EAX || at > 0 && code[at - 1] === REX_B) continue;
    const value = BigInt(
      new DataView(code.buffer, code.byteOffset).getUint32(at + 1, true),
    );
    if (known.includes(value)) return value;
  }
  return undefined;
}

function numberFromArguments(registers: BigUint64Array): bigint | undefined {
  // Programs begin at 4 MiB or above; a smaller value is a time or a count.
  const pointer = (value: bigint) => value >= 1n << 22n && value < 1n << 47n;
  const pointerOrNull = (value: bigint) => value === 0n || pointer(value);
  const int = (value: bigint) => BigInt.asIntN(32, value);
  const a = registers[REGISTER.rdi];
  const b = registers[REGISTER.rsi];
  const c = registers[REGISTER.rdx];
  const d = registers[REGISTER.r10];

  const FUTEX_FLAGS = 128 | 256; // PRIVATE, CLOCK_REALTIME
  const operation = Number(int(b)) & ~FUTEX_FLAGS;
  const waits = operation === 0 || operation === 9; // WAIT, WAIT_BITSET
  if (waits && pointer(a) && a % 4n === 0n && pointer(d)) return CALL.futex;

  // Clock numbers: 0 to 11, and negative ones for CPU time of tasks. Only a
  // relative sleep (flags 0) goes on by restart_syscall.
  if (
    int(a) < 12n && !pointer(a) && int(b) === 0n && pointer(c) &&
    pointerOrNull(d)
  ) {
    return CALL.clockNanosleep;
  }
  if (pointer(a) && pointerOrNull(b)) return CALL.nanosleep;
  // Any timeout but 0, for which poll does not wait.
  const MOST_DESCRIPTORS = 1n << 20n;
  if (int(c) !== 0n && b < MOST_DESCRIPTORS && (b === 0n || pointer(a))) {
    return CALL.poll;
  }
  return undefined;
}

function endsWith(code: Uint8Array, first: number, second: number): boolean {
  return code.at(-2) === first && code.at(-1) === second;
}
