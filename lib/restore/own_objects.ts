/**
 * What ckpt opens or makes itself before the first process exists: kernel
 * objects that are each one open file, which the processes are given.
 * Namespaces, maps of eBPF, POSIX message queues, queues of network devices,
 * io_urings, packet sockets that have rings in memory.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { close, O, open, stat, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  bpfMapImageProblem,
  makeBpfMap,
  openBpfMap,
} from "../files/bpf_map.ts";
import { makeRing, ringImageProblem } from "../files/io_uring.ts";
import { isMadeByProcess } from "../files/register_with_ring.ts";
import { interfacesOf } from "../files/interfaces.ts";
import { makePacketRings } from "../files/make_packet_rings.ts";
import { namespacePath } from "../files/namespaces.ts";
import {
  makeQueue,
  openQueue,
  queueImageProblem,
  unlinkQueue,
} from "../files/queue.ts";
import { isEntered } from "../ns/inside.ts";
import { isOwnNamespace } from "../ns/kinds.ts";
import type { MadeFile } from "../ghost/make.ts";
import { isPersistent, makeTun } from "../files/tun.ts";
import { hasLink, restoreTunLink } from "../ns/tun_link.ts";
import type {
  ckpt_queue_entry,
  ckpt_ring_entry,
  ckpt_tun_entry,
  task_kobj_ids_entry,
} from "../image/schema.gen.ts";
import type { TreeImages } from "./task_images.ts";

type Images = Pick<
  TreeImages,
  "set" | "files" | "open" | "sockets" | "processes"
>;

/** Numbers of the namespaces that the tree, and so ckpt, is in. */
function idsOfRoot(set: Images["set"]): task_kobj_ids_entry {
  const [root] = set.require("pstree", undefined);
  return set.require("ids", root.pid);
}

/** What cannot be opened or made here. */
export function ownObjectProblems(
  { set, files, open, processes }: Images,
): Reason[] {
  const reasons: Reason[] = [];
  for (const { id, nsf, bpf } of files.values()) {
    const why = bpf !== undefined
      ? bpfMapImageProblem(bpf)
      : nsf !== undefined &&
          namespacePath(nsf, idsOfRoot(set)) === undefined
      ? "it is a namespace that the program was not in, which is not supported"
      : undefined;
    if (why !== undefined) reasons.push({ object: `files.img, id ${id}`, why });
  }
  const { root_ids } = set.inventory;
  const isHere = !isOwnNamespace("ipc", idsOfRoot(set), root_ids) ||
    isEntered("ipc");
  for (const entry of ringsOf(set)) {
    const why = ringImageProblem(entry) ??
      (open.has(entry.id) ? ringOwnerProblem(entry, processes) : undefined);
    if (why === undefined) continue;
    reasons.push({ object: `files.img, id ${entry.id}, an io_uring`, why });
  }
  for (const entry of queuesOf(set)) {
    const problem = queueProblem(entry, isHere);
    if (problem === undefined) continue;
    reasons.push({ object: `message queue /${entry.name}`, ...problem });
  }
  const tuns = set.read("ckpt-tuns", undefined) ?? [];
  for (const entry of tuns) {
    const problem = tunProblem(entry);
    if (problem === undefined) continue;
    reasons.push({ object: `the network device ${entry.name}`, ...problem });
  }
  return reasons;
}

/** One that goes with its program is made; another has to be there. */
function tunProblem(
  entry: ckpt_tun_entry,
): Omit<Reason, "object"> | undefined {
  const { name, link } = entry;
  const isThere = hasLink(name);
  if (link !== undefined && isThere) {
    return {
      why: "there is one of that name, and the program is to make it",
      remedy: `end who has it, or remove it: ip link del ${name}`,
    };
  }
  return isPersistent(entry) && !isThere
    ? {
      why: "it was persistent, and is gone",
      remedy: `make it first: ip tuntap add dev ${name} mode tun (or tap)`,
    }
    : undefined;
}

/** It is made by a process, and by threads of it. */
function ringOwnerProblem(
  { id, pid, thread, poller, registered_by }: ckpt_ring_entry,
  processes: TreeImages["processes"],
): string | undefined {
  const owner = processes.find((process) => process.pid === pid);
  if (!owner?.descriptors.some((entry) => entry.id === id)) {
    return `process ${pid} has no descriptor of it`;
  }
  const wanted = [
    ...registered_by.map(({ thread }) => thread),
    ...thread === undefined ? [] : [thread],
    ...poller === undefined ? [] : [poller.credentials],
  ];
  const missing = wanted.find((id) =>
    !owner.threads.some(({ tid }) => tid === id)
  );
  return missing === undefined
    ? undefined
    : `process ${pid} has no thread ${missing}`;
}

function ringsOf(set: TreeImages["set"]): ckpt_ring_entry[] {
  return set.read("ckpt-rings", undefined) ?? [];
}

function queuesOf(set: TreeImages["set"]): ckpt_queue_entry[] {
  return set.read("ckpt-queues", undefined) ?? [];
}

/**
 * The host may have another queue of that name, or none where others need it.
 *
 * @param isHere whether ckpt is in the ipc namespace that the tree will be in
 */
function queueProblem(
  entry: ckpt_queue_entry,
  isHere: boolean,
): Omit<Reason, "object"> | undefined {
  const why = queueImageProblem(entry);
  if (why !== undefined) return { why };
  if (entry.deleted || !isHere) return undefined;
  const fd = openQueue(entry.name, O.RDONLY);
  if (fd === undefined) {
    return entry.shared
      ? { why: "processes outside of the program had it, too, and it is gone" }
      : undefined;
  }
  const { ino } = stat(fd);
  close(fd);
  return ino === entry.inode ? undefined : {
    why: "the host has another message queue of that name by now",
    remedy: "remove it (mq_unlink(3)), if nothing needs it",
  };
}

export class OwnObjects implements Disposable {
  /** What stands for each, by the id of its file. */
  readonly byFile = new Map<number, MadeFile>();
  /** Names of queues that were made, which a restore that fails takes back. */
  readonly #made: string[] = [];

  private constructor() {}

  /** @throws CkptError naming what could not be opened or made */
  static make(images: Images): OwnObjects {
    const made = new OwnObjects();
    try {
      made.#openNamespaces(images);
      made.#makeMaps(images);
      made.#attachTuns(images);
      for (const entry of ringsOf(images.set)) {
        if (!images.open.has(entry.id) || isMadeByProcess(entry)) continue;
        const fd = attempt("an io_uring", () => makeRing(entry));
        made.byFile.set(entry.id, { fd, reopen: false });
      }
      made.#makePacketRings(images);
      for (const entry of queuesOf(images.set)) {
        attempt(
          `message queue /${entry.name}`,
          () => made.#open(entry, images),
        );
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  #openNamespaces({ set, files, open: used }: Images): void {
    for (const { id, nsf } of files.values()) {
      if (nsf === undefined || !used.has(id)) continue;
      const path = namespacePath(nsf, idsOfRoot(set))!;
      const fd = attempt(path, () => open(encodeText(path), O.RDONLY));
      this.byFile.set(id, { fd, reopen: true });
    }
  }

  #makeMaps({ set, files, open: used }: Images): void {
    const contents = set.read("bpfmap-data", undefined) ?? [];
    const maps = new Map<number, number>();
    try {
      for (const { id, bpf } of files.values()) {
        if (bpf === undefined || !used.has(id)) continue;
        attempt(`map "${bpf.map_name}" of eBPF`, () => {
          let map = maps.get(bpf.map_id);
          if (map === undefined) {
            map = makeBpfMap(
              bpf,
              contents.find(({ map_id }) => map_id === bpf.map_id),
            );
            maps.set(bpf.map_id, map);
          }
          const fd = openBpfMap(map, bpf.flags);
          this.byFile.set(id, { fd, reopen: false });
        });
      }
    } finally {
      for (const map of maps.values()) close(map);
    }
  }

  #attachTuns({ set, files, open: used }: Images): void {
    for (const entry of set.read("ckpt-tuns", undefined) ?? []) {
      const { id, name, link } = entry;
      if (!used.has(id)) continue;
      const { name: path, flags } = files.get(id)!.reg!;
      const object = `the network device ${name}`;
      const wanted = flags & (O.ACCMODE | O.NONBLOCK);
      const fd = attempt(object, () => makeTun(path, wanted, entry));
      this.byFile.set(id, { fd, reopen: false });
      if (link !== undefined) restoreTunLink(name, link);
    }
  }

  #makePacketRings({ sockets: { packet }, open: used }: Images): void {
    const interfaces = interfacesOf(
      [...packet.values()].map(({ extension }) => ({ entry: {}, extension })),
    );
    for (const [id, image] of packet) {
      const { packet_rings } = image.extension;
      if (packet_rings === undefined || !used.has(id)) continue;
      const fd = attempt(
        "a packet socket with rings",
        () => makePacketRings(image, interfaces),
      );
      this.byFile.set(id, { fd, reopen: false });
    }
  }

  /** One that is there, or a new one; every open file of it. */
  #open(entry: ckpt_queue_entry, { files, open: used }: Images): void {
    const ids = entry.files.filter((id) => used.has(id));
    // One that nobody has open is part of the tree's ipc namespace.
    if (ids.length === 0 && entry.files.length > 0) return;
    let { name } = entry;
    if (entry.deleted || !isTaken(name)) {
      // As long as it has a name, that of another queue may be the same.
      while (isTaken(name)) name = `${name.slice(0, 200)}.ckpt`;
      close(makeQueue(entry, name));
      this.#made.push(name);
    }
    for (const id of ids) {
      const flags = files.get(id)!.reg!.flags & (O.ACCMODE | O.NONBLOCK);
      this.byFile.set(id, { fd: openQueue(name, flags)!, reopen: false });
    }
    if (!entry.deleted) return;
    unlinkQueue(name);
    this.#made.pop();
  }

  /** Nothing can fail any more. */
  keep(): void {
    this.#made.length = 0;
  }

  [Symbol.dispose](): void {
    for (const name of this.#made.splice(0)) unlinkQueue(name);
    for (const { fd } of this.byFile.values()) close(fd);
    this.byFile.clear();
  }
}

function isTaken(name: string): boolean {
  const fd = openQueue(name, O.RDONLY);
  if (fd !== undefined) close(fd);
  return fd !== undefined;
}

function attempt<T>(object: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "making kernel objects", [{
      object,
      why: error.message,
    }], { cause: error });
  }
}
