/**
 * Sockets that share a port (SO_REUSEPORT): their order, by which the kernel
 * chooses who gets what, and a program that chooses instead. Nobody but the
 * kernel's memory tells of either. A restore binds them by ckpt's own hands,
 * when all processes have made theirs.
 */
import { CkptError, EXIT } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { close } from "../ffi/syscall.ts";
import type { ckpt_shared_port_entry } from "../image/schema.gen.ts";
import { placeInetSocket } from "./make_inet_socket.ts";
import { kernelSockets, type SharedPort } from "./kernel_sockets.ts";
import { actOn, type UnfinishedSocket } from "./own_hands.ts";
import { OptionSetter } from "./option_setter.ts";
import { SO } from "./sockopt.ts";
import { mayShareItsPort, type SocketHolder } from "./sockets.ts";

/** By the inodes of the sockets. */
export type SharedPorts = ReadonlyMap<number, ckpt_shared_port_entry>;

export interface FoundSharedPorts {
  readonly ports: SharedPorts;
  /** Why a program that chooses would be lost here; undefined: it is not. */
  readonly unseen: string | undefined;
}

/**
 * Looks at the sockets of a tree that stands still.
 *
 * @throws CkptError naming a socket that cannot be saved
 */
export function readSharedPorts(
  processes: readonly SocketHolder[],
): FoundSharedPorts {
  const kernel = kernelSockets();
  if (typeof kernel === "string") return { ports: new Map(), unseen: kernel };
  const seen = new Map<number, SharedPort>();
  try {
    for (const { pid, tid = pid, descriptors } of processes) {
      for (const { fd, link, socket } of descriptors) {
        if (!mayShareItsPort(socket) || seen.has(socket.ino)) continue;
        const own = getDescriptorOf(tid, fd);
        try {
          const port = kernel.sharedPort(own);
          if (port === undefined) continue;
          if (port.program === "eBPF") {
            throw refusal(`descriptor ${fd} (${link}) of task ${tid}`);
          }
          seen.set(socket.ino, port);
        } finally {
          close(own);
        }
      }
    }
  } catch (error) {
    if (!(error instanceof NoSuchMemory)) throw error;
    return { ports: new Map(), unseen: error.message };
  }
  return { ports: describeSharedPorts(seen), unseen: undefined };
}

function refusal(object: string): CkptError {
  return new CkptError(EXIT.refused, "looking at sockets that share a port", [{
    object,
    why: "a program of eBPF chooses among those that share its port " +
      "(SO_ATTACH_REUSEPORT_EBPF), and the kernel does not give its " +
      "instructions",
    remedy: "detach it first (SO_DETACH_REUSEPORT_BPF)",
  }]);
}

/** Those that have no others and no program need nothing. */
export function describeSharedPorts(
  seen: ReadonlyMap<number, SharedPort>,
): SharedPorts {
  const groups = [...new Set([...seen.values()].map(({ group }) => group))];
  return new Map(
    [...seen].filter(([, { count, program }]) =>
      count > 1 || program !== undefined
    ).map(([ino, { group, index, program }]) => [ino, {
      group: groups.indexOf(group),
      index,
      program: program === "eBPF" ? undefined : program,
    }]),
  );
}

/**
 * Binds them in their order.
 *
 * @throws CkptError
 */
export function placeSharedPorts(
  sockets: readonly UnfinishedSocket[],
  interfaces: ReadonlyMap<string, number>,
): void {
  const place = ({ image }: UnfinishedSocket) => image.extension.shared_port!;
  const sorted = sockets.toSorted((a, b) =>
    place(a).group - place(b).group || place(a).index - place(b).index
  );
  sorted.forEach((socket, i) => {
    const { group, program } = place(socket);
    const next = sorted[i + 1];
    const isLast = next === undefined || place(next).group !== group;
    placeOne(socket, interfaces, isLast ? program : undefined);
  });
}

function placeOne(
  socket: UnfinishedSocket,
  interfaces: ReadonlyMap<string, number>,
  chooser: Uint8Array | undefined,
): void {
  actOn(socket, (program, own) => {
    const { pid, fd, image } = socket;
    const what = `descriptor ${fd} of task ${pid}`;
    const options = new OptionSetter(program, own, what);
    placeInetSocket(options, image, interfaces);
    if (chooser !== undefined) {
      options.attach(SO.ATTACH_REUSEPORT_CBPF, chooser);
    }
  });
}
