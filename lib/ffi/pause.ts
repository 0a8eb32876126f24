import { addressOf, syscallBeside } from "./syscall.ts";

/** Sleeps without giving way to other JavaScript. */
export function pause(milliseconds: number): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(cell, 0, 0, milliseconds);
}

/**
 * Sleeps while other JavaScript goes on. The first timer of Deno's would load
 * 5 ms of code.
 */
export async function sleep(milliseconds: number): Promise<void> {
  const CLOCK_MONOTONIC = 1n;
  const nanoseconds = BigInt(Math.round(milliseconds * 1e6));
  const time = new Uint8Array(
    new BigUint64Array([nanoseconds / 10n ** 9n, nanoseconds % 10n ** 9n])
      .buffer,
  );
  await syscallBeside("clock_nanosleep", CLOCK_MONOTONIC, 0n, addressOf(time));
  time.fill(0); // It has to live until here.
}

/**
 * Calls a function every so often, until what is returned is disposed of. The
 * first timer of JavaScript's would take 25 ms: Deno compiles modules of Node's
 * for it.
 */
export function every(milliseconds: number, tick: () => void): Disposable {
  let ended = false;
  const repeat = async () => {
    for (;;) {
      await sleep(milliseconds);
      if (ended) return;
      tick();
    }
  };
  repeat();
  return { [Symbol.dispose]: () => ended = true };
}
