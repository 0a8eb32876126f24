/**
 * The TCP connections of a tree during a dump: their traffic is blocked while
 * they are read, and stays so when the program ends by the dump. Should ckpt
 * fail or be killed, the kernel lets it through again.
 */
import { EXIT } from "../error.ts";
import { makeRoomForDescriptors } from "../ffi/descriptor_room.ts";
import { lockName, NetworkLock } from "../files/network_lock.ts";
import {
  ConnectionChanged,
  countConnections,
  HeldConnections,
  type ReadConnections,
} from "../files/tcp_connection.ts";
import { ChangedMeanwhile } from "./survey.ts";

type Processes = Parameters<typeof HeldConnections.of>[0];

export class DumpedConnections implements Disposable {
  #lock: NetworkLock | undefined;
  #held: HeldConnections | undefined;
  #endsWithCkpt = false;

  /** @param runId names the dump, and the table that stays */
  constructor(readonly runId: string) {}

  /**
   * Before the program is stopped: what takes long, or may fail.
   *
   * @throws CkptError when the kernel cannot block connections
   */
  #unaccepted: ReadonlySet<number> = new Set();

  prepare(processes: Processes): void {
    if (this.#lock !== undefined) return;
    makeRoomForDescriptors(countConnections(processes));
    this.#lock = NetworkLock.prepare(this.runId);
  }

  /**
   * Of a tree that stands still.
   *
   * @throws ChangedMeanwhile when one has ended since it was looked at
   */
  read(processes: Processes): ReadConnections {
    this.prepare(processes);
    const held = this.#held = HeldConnections.of(processes);
    this.#lock!.block(held.addresses());
    try {
      return held.read();
    } catch (error) {
      if (!(error instanceof ConnectionChanged)) throw error;
      throw new ChangedMeanwhile(EXIT.failed, "reading TCP connections", [{
        object: "a TCP connection",
        why: error.message,
        remedy: "dump again",
      }]);
    }
  }

  /**
   * Those that a restore connects anew: nobody outside has the other end, and
   * their packets are to get through then.
   *
   * @param unaccepted inodes of their sockets
   */
  letThrough(unaccepted: ReadonlySet<number>): void {
    this.#unaccepted = unaccepted;
  }

  /** The program goes on, and its connections with it. */
  letGo(): void {
    if (this.#held === undefined) return;
    this.#lock!.unblock();
    this.#held[Symbol.dispose]();
    this.#held = undefined;
  }

  /** The program has ended: nothing is sent until it is restored. */
  end(): void {
    if (this.#held === undefined) return;
    const addresses = this.#held.addresses(this.#unaccepted);
    this.#lock!.leave(lockName(this.runId), addresses);
    this.#held.silence();
  }

  /** The program ends with ckpt: nothing is sent until it is restored. */
  endWithCkpt(): void {
    this.#endsWithCkpt = true;
    this.end();
  }

  [Symbol.dispose](): void {
    if (this.#endsWithCkpt) return;
    this.#held?.[Symbol.dispose]();
    this.#lock?.[Symbol.dispose]();
  }
}
