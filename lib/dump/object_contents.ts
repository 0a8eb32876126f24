/**
 * What is in maps of eBPF, POSIX message queues and io_urings, and what the
 * network knows of devices that the program serves: read while the tree stands
 * still, and written to images of their own.
 */
import { CkptError, EXIT } from "../error.ts";
import { close, O, stat, SyscallError } from "../ffi/syscall.ts";
import {
  type BpfMap,
  type BpfMapContent,
  dumpBpfMapContent,
  parseBpfMap,
  readBpfMap,
  TypedMap,
} from "../files/bpf_map.ts";
import {
  type Description,
  type SeenDescriptor,
  type SeenTable,
  withOwnContents,
} from "../files/descriptors.ts";
import type { FileTable } from "../files/file_table.ts";
import { type OutsideHolders, pipeKey } from "../files/outside_holders.ts";
import {
  lookAtQueue,
  openQueue,
  type Queue,
  readMessages,
} from "../files/queue.ts";
import { isRingLink, readRings } from "../files/io_uring.ts";
import { describeTun, isPersistent } from "../files/tun.ts";
import type { Feature } from "../image/features.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import type {
  ckpt_message_entry,
  ckpt_queue_entry,
  ckpt_ring_entry,
  ckpt_tun_entry,
} from "../image/schema.gen.ts";
import { readTunLink, type SeenTunLink } from "../ns/tun_link.ts";

interface SeenQueue {
  readonly queue: Queue;
  readonly shared: boolean;
  readonly messages: ckpt_message_entry[];
}

export class ObjectContents {
  readonly #maps = new Map<number, [BpfMap, BpfMapContent]>();
  readonly #queues = new Map<string, SeenQueue>();
  /** Those of the tree's ipc namespace that nobody has open. */
  readonly #unused: ckpt_queue_entry[] = [];
  /** By the names of devices. */
  readonly #links = new Map<string, SeenTunLink>();
  /** By the inodes of their files. */
  #rings: ReturnType<typeof readRings> = new Map();

  /**
   * @param outside who else has the queues open
   * @param queues names of all that end with the tree
   * @throws CkptError naming the descriptor
   */
  static read(
    tables: readonly SeenTable[],
    outside: OutsideHolders,
    queues: readonly string[],
  ): ObjectContents {
    const contents = new ObjectContents();
    for (const { pid, tid = pid, descriptors } of tables) {
      for (const descriptor of withOwnContents(descriptors)) {
        try {
          contents.#read(tid, descriptor, outside);
        } catch (error) {
          throw explained(error, pid, descriptor);
        }
      }
    }
    const open = new Set(
      [...contents.#queues.values()].map(({ queue: { name, deleted } }) =>
        deleted ? undefined : name
      ),
    );
    for (const name of queues) {
      if (!open.has(name)) contents.#readUnused(name);
    }
    contents.#rings = readRings(tables);
    return contents;
  }

  #readUnused(name: string): void {
    const fd = openQueue(name, O.RDONLY | O.NONBLOCK);
    if (fd === undefined) return;
    try {
      const queue = lookAtQueue(fd, `/${name}`)!;
      const messages = readMessages(`/proc/self/fd/${fd}`, queue);
      const seen = { queue, messages, shared: false };
      this.#unused.push(describeQueue({ status: stat(fd) }, seen));
    } finally {
      close(fd);
    }
  }

  #read(
    tid: number,
    { fd, link, info, status, queue, tun }: SeenDescriptor,
    outside: OutsideHolders,
  ): void {
    if (tun?.name !== undefined) {
      if (!this.#links.has(tun.name)) this.#readLink(tun.name, fd, tid);
      return;
    }
    if (isRingLink(link)) return;
    if (queue === undefined) {
      const map = parseBpfMap(info.extra);
      if (!this.#maps.has(map.id)) {
        this.#maps.set(map.id, [map, readBpfMap(map)]);
      }
      return;
    }
    const key = pipeKey({ link, status });
    if (this.#queues.has(key)) return;
    const shared = outside.holder({ link, status }) !== undefined;
    const messages = shared ? [] : readMessages(`/proc/${tid}/fd/${fd}`, queue);
    this.#queues.set(key, { queue, shared, messages });
  }

  #readLink(name: string, fd: number, tid: number): void {
    const seen = readTunLink(name);
    if (seen?.disabledQueues === 0) {
      this.#links.set(name, seen);
      return;
    }
    throw new CkptError(EXIT.refused, "looking at network devices", [{
      object: `descriptor ${fd} of task ${tid}`,
      why: seen === undefined
        ? `its network device ${name} is gone`
        : `its network device ${name} has queues that are detached ` +
          "(TUNSETQUEUE), and the kernel does not tell which they are",
    }]);
  }

  /**
   * Completes files.img, and writes what is beside it.
   *
   * @param descriptions of all processes, as often as they are held
   */
  write(
    descriptions: Iterable<Description>,
    table: FileTable,
    writer: ImageWriter,
  ): ReadonlySet<Feature> {
    for (const { bpf } of table.entries) {
      if (bpf !== undefined) bpf.map_name = this.#maps.get(bpf.map_id)![1].name;
    }
    if (this.#maps.size > 0) {
      writer.write(
        "bpfmap-data",
        undefined,
        [...this.#maps.values()].map(([map, content]) =>
          dumpBpfMapContent(map, content)
        ),
      );
    }
    const features = new Set<Feature>();
    const tuns = describeTuns(descriptions, table, this.#links);
    if (tuns.length > 0) {
      writer.write("ckpt-tuns", undefined, tuns);
      features.add("ckpt:tun");
    }
    const queues = new Map<string, ckpt_queue_entry>();
    const rings = new Map<bigint, ckpt_ring_entry>();
    for (const description of descriptions) {
      if (description.kind === "io_uring") {
        const { ino } = description.status;
        const id = table.idOf(description);
        rings.set(ino, { id, ...this.#rings.get(ino)! });
      }
      if (description.kind !== "queue") continue;
      const key = pipeKey(description);
      const entry = queues.get(key) ??
        describeQueue(description, this.#queues.get(key)!);
      queues.set(key, entry);
      const id = table.idOf(description);
      if (!entry.files.includes(id)) entry.files.push(id);
    }
    const all = [...queues.values(), ...this.#unused];
    if (all.length > 0) {
      writer.write("ckpt-queues", undefined, all);
      features.add("ckpt:queues");
    }
    if (rings.size > 0) {
      writer.write("ckpt-rings", undefined, [...rings.values()]);
      features.add("ckpt:rings");
    }
    return features;
  }
}

function describeTuns(
  descriptions: Iterable<Description>,
  table: FileTable,
  links: ReadonlyMap<string, SeenTunLink>,
): ckpt_tun_entry[] {
  const found = new Map<Description, ckpt_tun_entry>();
  const made = new Set<string>();
  for (const description of descriptions) {
    const { kind, tun } = description;
    if (kind !== "tun" || found.has(description)) continue;
    const name = tun!.name!;
    const { noPi, link } = links.get(name)!;
    // Who opens it first makes it.
    const makes = !isPersistent(tun!) && !made.has(name);
    made.add(name);
    const id = table.idOf(description);
    found.set(
      description,
      describeTun(tun!, id, noPi, makes ? link : undefined),
    );
  }
  return [...found.values()];
}

const PERMISSIONS = 0o7777;

function describeQueue(
  { status: { ino, uid, gid, mode } }: Pick<Description, "status">,
  { queue, shared, messages }: SeenQueue,
): ckpt_queue_entry {
  return {
    name: queue.name,
    deleted: queue.deleted || undefined,
    inode: ino,
    uid,
    gid,
    mode: mode & PERMISSIONS,
    max_messages: queue.maxMessages,
    message_size: queue.messageSize,
    messages,
    files: [],
    shared: shared || undefined,
  };
}

function explained(
  error: unknown,
  pid: number,
  { fd, link }: SeenDescriptor,
): unknown {
  if (error instanceof CkptError) return error;
  const why = error instanceof TypedMap
    ? "types belong to it (BTF), which cannot be loaded again"
    : error instanceof SyscallError
    ? error.message
    : undefined;
  if (why === undefined) return error;
  return new CkptError(
    error instanceof TypedMap ? EXIT.refused : EXIT.failed,
    "reading the content of kernel objects",
    [{ object: `descriptor ${fd} (${link}) of task ${pid}`, why }],
    { cause: error },
  );
}
