/**
 * The network devices by which datagrams to multicast groups leave
 * (IP_MULTICAST_IF). The kernel tells only of those that were chosen by an
 * address; the number of a device is looked up in its memory.
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { close } from "../ffi/syscall.ts";
import type { ckpt_socket_option } from "../image/schema.gen.ts";
import { kernelSockets, type MulticastDevice } from "./kernel_sockets.ts";
import { sendsToGroups, type SocketHolder } from "./sockets.ts";
import { IPPROTO_IP } from "./socket_kind.ts";
import { IP_MULTICAST_IF } from "./sockopt.ts";

export interface FoundMulticastDevices {
  /** Options to set instead of what the kernel tells, by inode. */
  readonly options: ReadonlyMap<number, ckpt_socket_option>;
  /** Why they would be lost here; undefined: they are not. */
  readonly unseen: string | undefined;
}

/** Looks at the sockets of a tree that stands still. */
export function readMulticastDevices(
  processes: readonly SocketHolder[],
): FoundMulticastDevices {
  const options = new Map<number, ckpt_socket_option>();
  const kernel = kernelSockets();
  if (typeof kernel === "string") return { options, unseen: kernel };
  try {
    for (const { pid, tid = pid, descriptors } of processes) {
      for (const { fd, socket } of descriptors) {
        if (!sendsToGroups(socket) || options.has(socket.ino)) continue;
        const own = getDescriptorOf(tid, fd);
        try {
          const device = kernel.multicastDevice(own);
          if (device.index !== 0) options.set(socket.ino, optionFor(device));
        } finally {
          close(own);
        }
      }
    }
  } catch (error) {
    if (!(error instanceof NoSuchMemory)) throw error;
    return { options, unseen: error.message };
  }
  return { options, unseen: undefined };
}

/** struct ip_mreqn: group, source, interface. */
export function optionFor(
  { index, address }: MulticastDevice,
): ckpt_socket_option {
  const value = new Uint8Array(12);
  value.set(address, 4);
  new DataView(value.buffer).setInt32(8, index, true);
  return { level: IPPROTO_IP, name: IP_MULTICAST_IF, value };
}
