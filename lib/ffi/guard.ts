/**
 * A tiny process that does what was prepared, should ckpt end without having
 * ended it, even by SIGKILL, or hold on for too long (c/lib/guard.c).
 */
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { close, O, open } from "./syscall.ts";

/** struct guard_order of c/lib/guard.c. */
const ORDER_SIZE = 24;
const TEXT_AT = 8;
const LONGEST_TEXT = 15;

/** A text to be written into a file. */
export interface GuardText {
  readonly path: string;
  /** ASCII, at most 15 letters. */
  readonly text: string;
}

/** An ioctl(2) without an argument, to be made of a file. */
export interface GuardRequest {
  readonly path: string;
  readonly request: number;
}

export type GuardOrder = GuardText | GuardRequest;

export class Guard implements Disposable {
  #address: bigint | undefined;

  private constructor(address: bigint) {
    this.#address = address;
  }

  /**
   * @param orders in the order in which they are carried out
   * @param seconds after which that is done at the latest; for ever unless
   * given
   * @throws SyscallError when a file cannot be opened
   * @throws CkptError when there is no process to be had
   */
  static start(orders: readonly GuardOrder[], seconds = -1): Guard {
    const encoded = new Uint8Array(orders.length * ORDER_SIZE);
    const view = new DataView(encoded.buffer);
    const fds: number[] = [];
    try {
      for (const [i, order] of orders.entries()) {
        const at = i * ORDER_SIZE;
        const fd = open(order.path, "text" in order ? O.WRONLY : O.RDONLY);
        fds.push(fd);
        view.setInt32(at, fd, true);
        if ("request" in order) {
          view.setUint32(at + 4, order.request, true);
          continue;
        }
        if (order.text.length > LONGEST_TEXT) {
          throw new Error(`"${order.text}" is too long`);
        }
        new TextEncoder().encodeInto(
          order.text,
          encoded.subarray(at + TEXT_AT, at + ORDER_SIZE - 1),
        );
      }
      return new Guard(checked(
        library("guard").ckpt_start_guard(
          encoded,
          BigInt(orders.length),
          BigInt(seconds),
        ),
        "starting a guard",
      ));
    } finally {
      // The guard has its own.
      for (const fd of fds) close(fd);
    }
  }

  /** Ends it: nothing is done any more. */
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
