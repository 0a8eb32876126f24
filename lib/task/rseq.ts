/**
 * Restartable sequences (Documentation/userspace-api/rseq.rst, rseq(2)): a
 * thread that is stopped inside a critical section goes on at the section's
 * abort handler, as after any preemption (kernel/rseq.c, rseq_ip_fixup).
 *
 * This holds for the image, and as much for a stopped thread in which the
 * agent makes system calls: the kernel then finds the thread outside of the
 * section and forgets it, so that nothing would guard the rest of it.
 */
import type { RseqRegistration } from "../ffi/thread_state.ts";
import type { Program } from "../ffi/program.ts";
import type { rseq_entry } from "../image/schema.gen.ts";

/** Bytes of struct rseq up to and with its rseq_cs. */
export const RSEQ_AREA_LENGTH = 16;
/** Bytes of struct rseq_cs. */
export const CRITICAL_SECTION_LENGTH = 32;

/** RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL; kernels since 6.0 do not allow it. */
const NO_RESTART_ON_SIGNAL = 2;

/**
 * @param area the beginning of the thread's struct rseq
 * @returns address of the struct rseq_cs it is in or was in last; 0n: none
 */
export function criticalSectionPointer(area: Uint8Array): bigint {
  return viewOf(area).getBigUint64(8, true);
}

/** Where a thread goes on. */
export interface Continuation {
  ip: bigint;
  /** It stays inside its critical section, which the kernel must know again. */
  stays: boolean;
}

/**
 * Where the kernel lets a thread go on that is stopped at `ip`.
 *
 * @param section struct rseq_cs that the pointer leads to
 */
export function afterCriticalSection(
  ip: bigint,
  section: Uint8Array,
): Continuation {
  const view = viewOf(section);
  const flags = view.getUint32(4, true);
  const start = view.getBigUint64(8, true);
  const length = view.getBigUint64(16, true);
  // Unsigned as in the kernel: an ip before the start is far behind the end.
  const inside = BigInt.asUintN(64, ip - start) < length;
  if (!inside) return { ip, stays: false };
  if ((flags & NO_RESTART_ON_SIGNAL) !== 0) return { ip, stays: true };
  return { ip: view.getBigUint64(24, true), stays: false };
}

/**
 * @param section where the thread's critical section is, when it stays in it
 * @returns undefined for a thread that has no registration
 */
export function rseqEntry(
  registration: RseqRegistration,
  section?: bigint,
): rseq_entry | undefined {
  if (registration.pointer === 0n) return undefined;
  return {
    rseq_abi_pointer: registration.pointer,
    rseq_abi_size: registration.size,
    signature: registration.signature,
    rseq_cs_pointer: section,
  };
}

/**
 * Registers the area again. The thread's memory must be in place. The kernel
 * clears the area's rseq_cs at registration (since 6.14), so the section of a
 * thread that stays inside is written after it.
 */
export function restoreRseq(program: Program, entry: rseq_entry): void {
  if (entry.rseq_abi_pointer === 0n) return;
  program.call(
    "rseq",
    [entry.rseq_abi_pointer, entry.rseq_abi_size, 0, entry.signature],
    "registering restartable sequences",
  );
  if (entry.rseq_cs_pointer !== undefined && entry.rseq_cs_pointer !== 0n) {
    program.call(
      "store",
      [entry.rseq_abi_pointer + 8n, entry.rseq_cs_pointer, 8],
      "entering the critical section of restartable sequences again",
    );
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
