/**
 * Descriptors in flight: sent by SCM_RIGHTS (unix(7)) and not received yet, so
 * that no process has a number for them. A look into the queues of Unix sockets
 * gives ckpt descriptors of its own for them; by these they are asked like
 * those of a process, which is ckpt.
 */
import { close } from "../ffi/syscall.ts";
import {
  lookAtDescriptors,
  type SeenDescriptor,
  type SeenTable,
  type TreeLook,
} from "./descriptors.ts";
import {
  NO_QUEUES,
  readSocketQueues,
  type SocketQueues,
  TreeSockets,
} from "./sockets.ts";

export class Flight implements Disposable {
  /** What was queued in the Unix sockets of the tree and in those in flight. */
  readonly queues: SocketQueues;
  /** As if they were descriptors of ckpt: each once for each time it is sent. */
  readonly table: SeenTable;
  #isClosed = false;

  private constructor(
    queues: SocketQueues,
    descriptors: readonly SeenDescriptor[],
  ) {
    this.queues = queues;
    this.table = { pid: Deno.pid, descriptors };
  }

  static readonly none = new Flight(NO_QUEUES, []);

  /**
   * Reads all queues. The tree has to stand still.
   *
   * @param look the same for all processes of the tree
   * @throws CkptError naming the socket that cannot be saved
   */
  static read(
    processes: readonly SeenTable[],
    look: TreeLook,
  ): Flight {
    const queues = new Map(readSocketQueues(processes));
    const descriptors: SeenDescriptor[] = [];
    const flight = new Flight(queues, descriptors);
    try {
      let found = rightsIn(queues);
      // A socket in flight may hold others.
      while (found.length > 0) {
        const seen = lookAtDescriptors(Deno.pid, look, found);
        descriptors.push(...seen);
        const more = readSocketQueues([{
          pid: Deno.pid,
          descriptors: seen.filter(({ sameAs }) => sameAs === undefined),
        }]);
        for (const [ino, packets] of more) queues.set(ino, packets);
        found = rightsIn(more);
      }
      new TreeSockets([...processes, flight.table]).confirmSenders(queues);
      return flight;
    } catch (error) {
      flight[Symbol.dispose]();
      throw error;
    }
  }

  /** ckpt does not keep them open any more. */
  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    rightsIn(this.queues).forEach(close);
  }
}

function rightsIn(queues: SocketQueues): number[] {
  return [...queues.values()].flatMap((packets) =>
    packets.flatMap(({ rights }) => rights)
  );
}
