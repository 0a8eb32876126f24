/** Waits for a restored program, and passes signals on to it meanwhile. */
import { library } from "../ffi/library.ts";
import { packedStart } from "../ffi/library_path.ts";
import { addressOf, NR, syscall } from "../ffi/syscall.ts";
import type { Report } from "../report.ts";
import type { RestoreOptions } from "./options.ts";

/** Signals that people and service managers send to a program they started. */
const PASSED_ON: readonly Deno.Signal[] = [
  "SIGUSR2",
  "SIGCONT",
  "SIGWINCH",
  "SIGALRM",
  "SIGQUIT",
];

const NUMBERS: Partial<Record<Deno.Signal, bigint>> = {
  SIGHUP: 1n,
  SIGINT: 2n,
  SIGQUIT: 3n,
  SIGUSR2: 12n,
  SIGALRM: 14n,
  SIGTERM: 15n,
  SIGCONT: 18n,
  SIGWINCH: 28n,
};

/** Signals that a terminal sends to all of its foreground group at once. */
const OF_TERMINAL: ReadonlySet<Deno.Signal> = new Set<Deno.Signal>([
  "SIGINT",
  "SIGQUIT",
  "SIGWINCH",
]);

const SIGUSR1 = 10n;

/**
 * SIGUSR1 is blocked in ckpt (tools/pack/stub.c), so it is taken off the queue
 * where it waits. Goes on beside JavaScript until ckpt ends.
 */
async function passOnUsr1(pid: number): Promise<void> {
  const mask = new Uint8Array(
    new BigUint64Array([1n << (SIGUSR1 - 1n)]).buffer,
  );
  const MASK_BYTES = 8n;
  for (;;) {
    const signal = await library("waiting").syscall_beside(
      BigInt(NR.rt_sigtimedwait),
      addressOf(mask),
      0n,
      0n,
      MASK_BYTES,
      0n,
      0n,
    );
    if (signal !== SIGUSR1) continue;
    try {
      syscall("kill", BigInt(pid), SIGUSR1);
    } catch {
      return; // it ended at this very moment
    }
  }
}

/**
 * @param pid a child of ckpt
 * @returns how it ended: an exit status or the number of a signal
 */
export async function waitForTask(
  pid: number,
  { shellJob }: RestoreOptions,
  report: Report,
): Promise<{ exit: number } | { signal: number }> {
  const stopPassing = report.onSignal((signal) => {
    // With --shell-job the program is in our group and has got it already.
    if (shellJob && OF_TERMINAL.has(signal)) return;
    const number = NUMBERS[signal];
    try {
      if (number !== undefined) syscall("kill", BigInt(pid), number);
    } catch {
      // It ended at this very moment.
    }
  }, PASSED_ON);
  if (packedStart() !== undefined) passOnUsr1(pid);
  const status = new Int32Array(2);
  try {
    await library("waiting").syscall_beside(
      BigInt(NR.wait4),
      BigInt(pid),
      addressOf(new Uint8Array(status.buffer)),
      0n,
      0n,
      0n,
      0n,
    );
  } finally {
    stopPassing();
  }
  const signal = status[0] & 0x7f;
  return signal === 0 ? { exit: status[0] >> 8 & 0xff } : { signal };
}
