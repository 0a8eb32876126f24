/**
 * Rings of packet sockets in memory (PACKET_RX_RING, PACKET_TX_RING, see
 * Documentation/networking/packet_mmap.rst): what is in them, and where in them
 * the kernel is, which only its memory tells (struct packet_sock in
 * net/packet/internal.h).
 *
 * The kernel goes on to receive while they are read: what it may not have
 * finished is left out, as if it had been lost.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";
import { pause } from "../ffi/pause.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { close, syscall } from "../ffi/syscall.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type {
  ckpt_packet_rings_entry,
  ckpt_ring_part_entry,
  packet_ring,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import type { Vma } from "../mm/vma.ts";
import { MAP } from "../mm/vma.ts";
import { PROT } from "../proc/maps.ts";
import type { PacketRings } from "./packet_diag.ts";
import type { SeenPacketSocket } from "./packet_socket.ts";
import type { SocketHolder } from "./sockets.ts";

/** PACKET_VERSION */
export const TPACKET_V3 = 2;
/** Bits of tp_status and block_status. */
export const STATUS = {
  kernel: 0,
  /** The program has it. */
  user: 1,
  /** Of TX: to be sent, and being sent. */
  sendRequest: 1,
  sending: 2,
  /** The block was given to the program before it was full. */
  timedOut: 0x20,
} as const;
/** struct tpacket_block_desc */
export const BLOCK = {
  status: 8,
  packets: 12,
  first: 16,
  length: 20,
  lastTime: 40,
  header: 48,
} as const;
/** Of struct tpacket3_hdr in a block: next, seconds, nanoseconds, ... */
const PACKET = { next: 0, seconds: 4, bytes: 48 } as const;
/** So that an entry of ckpt-sockets.img holds it (lib/image/limits.ts). */
const LARGEST = 128 << 20;
/** The kernel has finished by then what it had begun. */
const MOMENT_MS = 1;

const WANTED = {
  file: ["private_data"],
  socket: ["sk"],
  packet_sock: [
    ...["rx_ring.head", "rx_ring.prb_bdqc.kactive_blk_num", "tx_ring.head"],
    "rx_ring.prb_bdqc.reset_pending_on_curr_blk",
  ],
} as const;

/** Where the kernel is. */
export interface RingPosition {
  /** The frame that it fills next, or the block that it fills. */
  readonly received: number;
  /** TPACKET_V3: it waits for that block, which the program had. */
  readonly frozen: boolean;
  /** The frame that it sends next. */
  readonly sent: number;
}

interface Holder extends SocketHolder {
  readonly vmas: { readonly vmas: readonly Vma[] };
}

export function bytesOf(ring: packet_ring | undefined): number {
  return ring === undefined ? 0 : ring.block_size * ring.block_nr;
}

/** Where a frame begins. */
export function frameAt(
  { block_size, frame_size }: packet_ring,
  frame: number,
): number {
  const inBlock = Math.floor(block_size / frame_size);
  return Math.floor(frame / inBlock) * block_size +
    frame % inBlock * frame_size;
}

/** Where tp_status is in a frame. */
export function statusAt(version: number): number {
  return version === TPACKET_V3 ? 20 : 0;
}

export function hasRings(
  { rings: { receiving, sending } }: Pick<SeenPacketSocket, "rings">,
): boolean {
  return (receiving ?? sending) !== undefined;
}

let opened: KernelStructures | string | undefined;

function kernelOf(): KernelStructures | string {
  return opened ??= KernelStructures.open(WANTED);
}

function ringsProblem({ rings }: SeenPacketSocket): string | undefined {
  const bytes = sizeOf(rings);
  const kernel = kernelOf();
  return bytes > LARGEST
    ? `its rings have ${bytes} bytes, more than ${LARGEST}`
    : typeof kernel === "string"
    ? "it has a ring of packets in memory, and to see where in it the kernel " +
      `is, its memory has to be read: ${kernel}`
    : undefined;
}

/** Why rings of a tree cannot be saved. */
export function packetRingReasons(processes: readonly Holder[]): Reason[] {
  const reasons: Reason[] = [];
  const sizes = new Map<bigint, number>();
  for (const { pid, descriptors } of processes) {
    for (const { fd, link, status, socket } of descriptors) {
      if (socket?.family !== "packet" || !hasRings(socket)) continue;
      sizes.set(status.ino, sizeOf(socket.rings));
      const why = ringsProblem(socket);
      if (why === undefined) continue;
      const object = `descriptor ${fd} (${link}) of task ${pid}`;
      reasons.push({ object, why });
    }
  }
  for (const { pid, vmas: { vmas }, descriptors } of processes) {
    const own = new Set(descriptors.map(({ status: { ino } }) => ino));
    for (const { entry: { status, start, end }, inode } of vmas) {
      if (status !== VMA_STATUS.SOCKET) continue;
      const isOwn = own.has(inode);
      if (isOwn && BigInt(sizes.get(inode) ?? 0) === end - start) continue;
      reasons.push({
        object: `mapping ${start.toString(16)} of task ${pid}`,
        why: !isOwn
          ? "it shows the ring of a socket that the process has no descriptor of"
          : "it is only a part of the rings of a packet socket",
      });
    }
  }
  return reasons;
}

function sizeOf({ receiving, sending }: PacketRings): number {
  return bytesOf(receiving) + bytesOf(sending);
}

/**
 * The rings of a tree that stands still, by the inodes of their sockets.
 *
 * @throws CkptError naming one that cannot be read
 */
export function readPacketRings(
  processes: readonly SocketHolder[],
): ReadonlyMap<number, ckpt_packet_rings_entry> {
  const found = new Map<number, ckpt_packet_rings_entry>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, socket } of descriptors) {
      if (
        socket?.family !== "packet" || !hasRings(socket) ||
        found.has(socket.ino)
      ) continue;
      const refuse = (why: string, cause?: unknown) => {
        const object = `descriptor ${fd} (${link}) of task ${pid}`;
        const action = "looking at packet sockets";
        return new CkptError(EXIT.refused, action, [{ object, why }], {
          cause,
        });
      };
      // It may have got them since the program was looked at while it ran.
      const why = ringsProblem(socket);
      if (why !== undefined) throw refuse(why);
      const own = getDescriptorOf(tid, fd);
      try {
        found.set(socket.ino, readOne(own, socket));
      } catch (error) {
        if (!(error instanceof NoSuchMemory)) throw error;
        throw refuse(
          `looking it up in the kernel failed: ${error.message}`,
          error,
        );
      } finally {
        close(own);
      }
    }
  }
  return found;
}

function readOne(
  fd: number,
  { rings, values: { VERSION: version } }: SeenPacketSocket,
): ckpt_packet_rings_entry {
  using memory = new RingMemory(fd, sizeOf(rings));
  const { receiving, sending } = rings;
  const before = positionOf(fd, version);
  const packets = receiving !== undefined && version === TPACKET_V3
    ? wordsOf(memory.bytes, before.received * receiving.block_size)
      .getUint32(BLOCK.packets, true)
    : 0;
  pause(MOMENT_MS);
  const content = memory.bytes.slice();
  const after = positionOf(fd, version);
  const split = bytesOf(receiving);
  if (sending !== undefined) {
    settleSent(content.subarray(split), sending, version);
  }
  let place: { received: number; stuck?: true | undefined } = { received: 0 };
  if (receiving !== undefined && version === TPACKET_V3) {
    place = settleBlocks(content, receiving, before, packets, after.received);
  } else if (receiving !== undefined) {
    place = { received: before.received };
    settleFrames(content, receiving, before.received, after.received);
  }
  return { ...place, sent: before.sent, parts: partsOf(content) };
}

function positionOf(fd: number, version: number): RingPosition {
  const kernel = kernelOf() as KernelStructures;
  const socket = kernel.pointer(kernel.file(fd), "file", "private_data");
  const packet = kernel.pointer(socket, "socket", "sk");
  const number = (field: string, length: number) =>
    kernel.number(packet, "packet_sock", field, length);
  const isV3 = version === TPACKET_V3;
  return {
    received: isV3
      ? number("rx_ring.prb_bdqc.kactive_blk_num", 2)
      : number("rx_ring.head", 4),
    frozen: isV3 &&
      number("rx_ring.prb_bdqc.reset_pending_on_curr_blk", 2) !== 0,
    sent: number("tx_ring.head", 4),
  };
}

/** The rings as the kernel and the program see them, mapped by ckpt. */
export class RingMemory implements Disposable {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #start: bigint;

  /** @throws SyscallError */
  constructor(fd: number, readonly length: number) {
    this.#start = syscall(
      "mmap",
      0n,
      BigInt(length),
      BigInt(PROT.read | PROT.write),
      BigInt(MAP.shared),
      BigInt(fd),
      0n,
    );
    const pointer = Deno.UnsafePointer.create(this.#start)!;
    this.bytes = new Uint8Array(
      Deno.UnsafePointerView.getArrayBuffer(pointer, length),
    );
  }

  [Symbol.dispose](): void {
    syscall("munmap", this.#start, BigInt(this.length));
  }
}

/** A view of bytes from a place on. */
export function wordsOf(
  { buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>,
  at = 0,
): DataView<ArrayBuffer> {
  return new DataView(buffer, byteOffset + at, byteLength - at);
}

/** Frames that the kernel has begun since a look at where it was: lost. */
export function settleFrames(
  content: Uint8Array<ArrayBuffer>,
  ring: packet_ring,
  from: number,
  to: number,
): void {
  for (let frame = from; frame !== to; frame = (frame + 1) % ring.frame_nr) {
    wordsOf(content, frameAt(ring, frame)).setBigUint64(0, 0n, true);
  }
}

/** Frames that are on their way: they have been sent. */
export function settleSent(
  content: Uint8Array<ArrayBuffer>,
  ring: packet_ring,
  version: number,
): void {
  for (let frame = 0; frame < ring.frame_nr; frame++) {
    const at = frameAt(ring, frame) + statusAt(version);
    const view = wordsOf(content, at);
    if ((view.getUint32(0, true) & STATUS.sending) !== 0) {
      view.setUint32(0, STATUS.kernel, true);
    }
  }
}

/**
 * Gives the program the packets in the block that the kernel was filling, as it
 * does itself when time is over (prb_close_block in net/packet/af_packet.c).
 *
 * @param content copied when the packets were there already
 * @param packets how many had been in that block
 * @param active the block that it was filling after the copy
 */
export function settleBlocks(
  content: Uint8Array<ArrayBuffer>,
  { block_size, block_nr }: packet_ring,
  { received, frozen }: RingPosition,
  packets: number,
  active: number,
): { received: number; stuck: true | undefined } {
  const block = (n: number) => wordsOf(content, n * block_size);
  const isUsed = (n: number) =>
    (block(n).getUint32(BLOCK.status, true) & STATUS.user) !== 0;
  const next = (n: number) => (n + 1) % block_nr;
  if (frozen && isUsed(received)) return { received, stuck: true };
  const isFree = (n: number) => block(n).setUint32(BLOCK.status, 0, true);
  // Filled since, and lost.
  for (let n = received; n !== active;) {
    n = next(n);
    isFree(n);
  }
  const filled = block(received);
  isFree(received);
  if (frozen || packets === 0 || !endAfter(filled, packets, block_size)) {
    return { received, stuck: undefined };
  }
  filled.setUint32(BLOCK.status, STATUS.user | STATUS.timedOut, true);
  const following = next(received);
  return { received: following, stuck: isUsed(following) || undefined };
}

/** @returns false where the packets are not one after the other */
function endAfter(
  block: DataView,
  packets: number,
  block_size: number,
): boolean {
  let at = block.getUint32(BLOCK.first, true);
  for (let left = packets;; left--) {
    if (at < BLOCK.header || at + PACKET.bytes > block_size) return false;
    const next = block.getUint32(at + PACKET.next, true);
    if (left > 1) {
      if (next === 0) return false;
      at += next;
      continue;
    }
    block.setUint32(BLOCK.packets, packets, true);
    if (next !== 0) block.setUint32(BLOCK.length, at + next, true);
    block.setUint32(at + PACKET.next, 0, true);
    const time = block.getBigUint64(at + PACKET.seconds, true);
    block.setBigUint64(BLOCK.lastTime, time, true);
    return true;
  }
}

/** What is not zero, in whole pages. */
export function partsOf(
  content: Uint8Array<ArrayBuffer>,
): ckpt_ring_part_entry[] {
  const parts: ckpt_ring_part_entry[] = [];
  const words = new BigUint64Array(
    content.buffer,
    content.byteOffset,
    content.length / 8,
  );
  const inPage = PAGE_SIZE / 8;
  for (let page = 0; page * inPage < words.length; page++) {
    const isZero = words.subarray(page * inPage, (page + 1) * inPage)
      .every((word) => word === 0n);
    if (isZero) continue;
    const offset = page * PAGE_SIZE;
    const bytes = content.subarray(offset, offset + PAGE_SIZE);
    const last = parts.at(-1);
    if (last === undefined || last.offset + last.content.length !== offset) {
      parts.push({ offset, content: bytes });
    } else {
      last.content = content.subarray(last.offset, offset + PAGE_SIZE);
    }
  }
  return parts;
}
