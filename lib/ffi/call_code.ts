/**
 * Machine code that makes system calls one after the other and keeps what they
 * return in registers: it reads and writes no memory, so that nothing comes of
 * it when the memory for the answers is gone meanwhile. It is written in front
 * of the cures of a stopped task (remote_task.ts), and goes on in the second.
 *
 *     rsp         the memory for the answers, by whose place arguments may name it
 *     rbx r12 r9  the results, 16 bits each, the first of four in the highest
 *     rbp, r13 to r15   the call by which the thread tells that it is done
 */
import { NR } from "./syscall.ts";

/** A place in the memory for answers, in bytes from its beginning. */
export interface Scratch {
  readonly scratch: number;
}

export interface OwnCall {
  readonly name: keyof typeof NR;
  /** At most five. */
  readonly args: readonly (number | Scratch)[];
}

/** Load an argument register: with 0, a 32-bit number, an address of rsp's. */
const ARGUMENTS = [
  { zero: [0x31, 0xff], value: [0xbf], address: [0x48, 0x8d, 0x7c, 0x24] }, // rdi
  { zero: [0x31, 0xf6], value: [0xbe], address: [0x48, 0x8d, 0x74, 0x24] }, // rsi
  { zero: [0x31, 0xd2], value: [0xba], address: [0x48, 0x8d, 0x54, 0x24] }, // rdx
  {
    zero: [0x45, 0x31, 0xd2],
    value: [0x41, 0xba],
    address: [0x4c, 0x8d, 0x54, 0x24],
  }, // r10
  {
    zero: [0x45, 0x31, 0xc0],
    value: [0x41, 0xb8],
    address: [0x4c, 0x8d, 0x44, 0x24],
  }, // r8
] as const;

/** For each register of results: shl $16, it; and or %rax, it. */
const RESULTS = [
  { shift: [0x48, 0xc1, 0xe3, 0x10], or: [0x48, 0x09, 0xc3] }, // rbx
  { shift: [0x49, 0xc1, 0xe4, 0x10], or: [0x49, 0x09, 0xc4] }, // r12
  { shift: [0x49, 0xc1, 0xe1, 0x10], or: [0x49, 0x09, 0xc1] }, // r9
] as const;
export const RESULT_REGISTERS = RESULTS.length;
const RESULTS_EACH = 4;
const RESULT_BITS = 16;

const SET_EAX = 0xb8;
const SYSCALL = [0x0f, 0x05];
/** movzwl %ax, %eax */
const LOW_HALF = [0x0f, 0xb7, 0xc0];
/** mov %r13, %rdi; mov %r14, %rsi; mov %r15, %rdx; mov %ebp, %eax; jmp */
const LEAVE = [0x4c, 0x89, 0xef, 0x4c, 0x89, 0xf6, 0x4c, 0x89, 0xfa]
  .concat([0x89, 0xe8, 0xe9]);

/**
 * @param calls whose results fit 16 bits with their sign
 * @param gap bytes from the end of the code to the system call instruction that
 * comes next
 */
export function encodeCalls(
  calls: readonly OwnCall[],
  gap: number,
): Uint8Array<ArrayBuffer> {
  if (calls.length > RESULTS.length * RESULTS_EACH) {
    throw new Error(`${calls.length} results do not fit the registers`);
  }
  return Uint8Array.from([
    ...calls.flatMap(({ name, args }, i) => {
      const { shift, or } = RESULTS[Math.floor(i / RESULTS_EACH)];
      return [
        ...args.flatMap((argument, k) => loadArgument(k, argument)),
        ...[SET_EAX, ...word(NR[name]), ...SYSCALL],
        ...[...shift, ...LOW_HALF, ...or],
      ];
    }),
    ...[...LEAVE, ...word(gap)],
  ]);
}

function loadArgument(index: number, argument: number | Scratch): number[] {
  const { zero, value, address } = ARGUMENTS[index];
  if (typeof argument === "object") return [...address, argument.scratch];
  return argument === 0 ? [...zero] : [...value, ...word(argument)];
}

function word(value: number): number[] {
  return [...new Uint8Array(Uint32Array.of(value).buffer)];
}

/**
 * @param registers as the code left them
 * @returns what each of `count` calls returned, negative: -errno
 */
export function callResults(
  registers: BigUint64Array,
  count: number,
): bigint[] {
  return Array.from({ length: count }, (_, i) => {
    const register = Math.floor(i / RESULTS_EACH);
    const last = Math.min(count, (register + 1) * RESULTS_EACH) - 1;
    const bits = registers[register] >> BigInt(RESULT_BITS * (last - i));
    return BigInt.asIntN(RESULT_BITS, bits);
  });
}
