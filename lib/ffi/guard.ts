/**
 * A tiny process that writes into files what was prepared, should ckpt end
 * without having ended it, even by SIGKILL (c/lib/guard.c).
 */
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { close, O, open } from "./syscall.ts";

/** struct guard_order of c/lib/guard.c. */
const ORDER_SIZE = 16;
const LONGEST_TEXT = 11;

export interface GuardOrder {
  readonly path: string;
  /** ASCII, at most 11 letters. */
  readonly text: string;
}

export class Guard implements Disposable {
  #address: bigint | undefined;

  private constructor(address: bigint) {
    this.#address = address;
  }

  /**
   * @param orders in the order in which they are carried out
   * @throws SyscallError when a file cannot be opened
   * @throws CkptError when there is no process to be had
   */
  static start(orders: readonly GuardOrder[]): Guard {
    const encoded = new Uint8Array(orders.length * ORDER_SIZE);
    const view = new DataView(encoded.buffer);
    const fds: number[] = [];
    try {
      for (const [i, { path, text }] of orders.entries()) {
        if (text.length > LONGEST_TEXT) {
          throw new Error(`"${text}" is too long`);
        }
        fds.push(open(path, O.WRONLY));
        view.setInt32(i * ORDER_SIZE, fds[i], true);
        new TextEncoder().encodeInto(
          text,
          encoded.subarray(i * ORDER_SIZE + 4, (i + 1) * ORDER_SIZE - 1),
        );
      }
      return new Guard(checked(
        library("guard").ckpt_start_guard(encoded, BigInt(orders.length)),
        "starting a guard",
      ));
    } finally {
      // The guard has its own.
      for (const fd of fds) close(fd);
    }
  }

  /** Ends it: nothing is written any more. */
  end(): void {
    if (this.#address === undefined) return;
    const address = this.#address;
    this.#address = undefined;
    checked(library("guard").ckpt_end_guard(address), "ending a guard");
  }

  [Symbol.dispose](): void {
    this.end();
  }
}
