/**
 * A tiny process that does what was prepared, should ckpt end without having
 * ended it, even by SIGKILL, or hold on for too long (c/lib/guard.c).
 */
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { close, O, open } from "./syscall.ts";
import { encodeText } from "./text.ts";

/** struct guard_order of c/lib/guard.c. */
const ORDER_SIZE = 160;
const ACT_AT = 4;
const REQUEST_AT = 8;
const TEXT_AT = 12;
/** More than a name of a directory, and the longest path of a Unix socket. */
const LONGEST_TEXT = 147;

/** enum guard_act, ibid. */
const ACT = { write: 0, request: 1, unlink: 2, rmdir: 3 } as const;

/** A text to be written into a file. */
export interface GuardText {
  readonly path: string;
  /** At most 147 bytes. */
  readonly text: string;
}

/** An ioctl(2) without an argument, to be made of a file. */
export interface GuardRequest {
  readonly path: string;
  readonly request: number;
}

/** A name to be removed, if it is there. */
export interface GuardRemoval {
  /** Of the directory. */
  readonly path: string;
  /** The way from there: at most 147 bytes. */
  readonly remove: string;
  readonly isDirectory: boolean;
}

export type GuardOrder = GuardText | GuardRequest | GuardRemoval;

function actOf(order: GuardOrder): number {
  if ("text" in order) return ACT.write;
  if ("request" in order) return ACT.request;
  return order.isDirectory ? ACT.rmdir : ACT.unlink;
}

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
        view.setUint32(at + ACT_AT, actOf(order), true);
        if ("request" in order) {
          view.setUint32(at + REQUEST_AT, order.request, true);
          continue;
        }
        const text = "text" in order ? order.text : order.remove;
        const bytes = encodeText(text);
        if (bytes.length > LONGEST_TEXT) {
          throw new Error(`"${text}" is too long`);
        }
        encoded.set(bytes, at + TEXT_AT);
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
