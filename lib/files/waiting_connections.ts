/**
 * Unix connections that wait to be accepted and have sent something already, or
 * whose maker has closed its end: only accept(2) would show these, so they are
 * looked up in the kernel's memory.
 */
import { CkptError, EXIT } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { close } from "../ffi/syscall.ts";
import type { ckpt_waiting_entry } from "../image/schema.gen.ts";
import {
  type KernelSockets,
  kernelSockets,
  type WaitingConnection,
} from "./kernel_sockets.ts";
import { holdsWaiting, type SocketHolder, TreeSockets } from "./sockets.ts";
import type { SeenUnixSocket } from "./unix_socket.ts";

/** By the inodes of the sockets that listen, the next to be accepted first. */
export type WaitingConnections = ReadonlyMap<
  number,
  readonly ckpt_waiting_entry[]
>;

/**
 * Reads those of a tree that stands still.
 *
 * @throws CkptError naming the socket that cannot be saved
 */
export function readWaiting(
  processes: readonly SocketHolder[],
): WaitingConnections {
  const kernel = kernelSockets();
  const others = new TreeSockets(processes).neighbours();
  const found = new Map<number, readonly ckpt_waiting_entry[]>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, socket } of descriptors) {
      if (socket?.family !== "unix" || !holdsWaiting(socket, others)) {
        continue;
      }
      if (found.has(socket.diag.ino)) continue;
      const object = `descriptor ${fd} (${link}) of task ${tid}`;
      if (typeof kernel === "string") throw refusal(object, kernel);
      found.set(socket.diag.ino, read(kernel, tid, fd, socket, object));
    }
  }
  return found;
}

function read(
  kernel: KernelSockets,
  pid: number,
  fd: number,
  { diag: { pending } }: SeenUnixSocket,
  object: string,
): ckpt_waiting_entry[] {
  const own = getDescriptorOf(pid, fd);
  try {
    const waiting = kernel.waitingConnections(own);
    if (waiting.length !== pending.length) {
      throw refusal(object, "their number has changed");
    }
    return waiting.map((one, i) => describe(one, pending[i], object));
  } catch (error) {
    if (error instanceof NoSuchMemory) throw refusal(object, error.message);
    throw error;
  } finally {
    close(own);
  }
}

function describe(
  { sent, uid, gid, hasRights }: WaitingConnection,
  ino: number,
  object: string,
): ckpt_waiting_entry {
  if (hasRights) {
    throw new CkptError(EXIT.refused, "reading what is in sockets", [{
      object,
      why: "descriptors were sent (SCM_RIGHTS) by a connection that waits to " +
        "be accepted, which is not supported",
      remedy: "dump again when it is accepted",
    }]);
  }
  return { ino, uid, gid, sent: [...sent] };
}

function refusal(object: string, why: string): CkptError {
  return new CkptError(EXIT.refused, "reading what is in sockets", [{
    object,
    why: "connections that wait to be accepted have sent bytes or were " +
      `closed already, and the kernel's memory cannot be read: ${why}`,
    remedy: "dump again when they are accepted",
  }]);
}
