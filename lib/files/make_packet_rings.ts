/**
 * Makes packet sockets that have rings in memory (packet_rings.ts). The kernel
 * lets nobody say where in a ring it is: so it gets as many frames as it had
 * got, by the loopback device and through a filter that lets no others pass.
 * Then the rings get their content, and the socket what it is to receive.
 */
import { CkptError, EXIT } from "../error.ts";
import { describeErrno } from "../ffi/errno.ts";
import { runOwnProgram } from "../ffi/own_program.ts";
import { pause } from "../ffi/pause.ts";
import { Program } from "../ffi/program.ts";
import { addressOf, close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import type { packet_ring } from "../image/schema.gen.ts";
import { interfaceIndex, interfaceMtu } from "./interfaces.ts";
import {
  BLOCK,
  bytesOf,
  frameAt,
  RingMemory,
  STATUS,
  statusAt,
  TPACKET_V3,
  wordsOf,
} from "./packet_rings.ts";
import {
  filterPacketSocket,
  placePacketSocket,
  preparePacketSocket,
} from "./packet_socket.ts";
import type { PacketSocketImage } from "./socket_images.ts";
import { OptionSetter } from "./option_setter.ts";
import { AF_PACKET, SOCK } from "./socket_kind.ts";
import { getOption, SO, SOL_PACKET, SOL_SOCKET } from "./sockopt.ts";

const OPTION = { RX_RING: 5, STATISTICS: 6, TX_RING: 13 } as const;
const SO_DETACH_FILTER = 27;
/** ETH_P_802_EX1, for experiments. */
const PROTOCOL = 0x88b5;
const ADDRESS = 20;
const ETHERNET_HEADER = 14;
const VNET_HEADER = 10;
const STATISTICS = 12;
const MSG_DONTWAIT = 0x40n;
/** What passes the filter begins with it. */
const COOKIE = 0x636b7074;
const SKF_NET_OFF = 0xfff00000;
/** As much as one packet of the loopback device carries, usually. */
const LARGEST_PACKET = 60000;
const SMALLEST_PACKET = 64;
const PATIENCE_MS = 5000;

/** Lengths of struct tpacket_hdr, tpacket2_hdr and tpacket3_hdr, and fields. */
const SENT_HEADER = [
  { bytes: 32, length: 8, mac: 16, net: 18 },
  { bytes: 32, length: 4, mac: 12, net: 14 },
  { bytes: 48, length: 16, mac: 24, net: 26 },
] as const;

/**
 * @param interfaces numbers of network interfaces
 * @returns a descriptor of ckpt's, of the socket as it was
 * @throws CkptError, SyscallError
 */
export function makePacketRings(
  image: PacketSocketImage,
  interfaces: ReadonlyMap<string, number>,
): number {
  const { entry: { type, rx_ring, tx_ring, version } } = image;
  const fd = socket(type);
  try {
    act(fd, (options) => {
      preparePacketSocket(options, image);
      const set = (name: number, ring: packet_ring | undefined) => {
        if (ring !== undefined) options.bytes(SOL_PACKET, name, request(ring));
      };
      set(OPTION.RX_RING, rx_ring);
      set(OPTION.TX_RING, tx_ring);
    });
    const { received, sent, stuck = false, parts } = image.extension
      .packet_rings!;
    const split = bytesOf(rx_ring);
    using memory = new RingMemory(fd, split + bytesOf(tx_ring));
    const isToCount = received > 0 || stuck;
    using loop = new Loop(fd, isToCount);
    const receiving = memory.bytes.subarray(0, split);
    let open: DataView | undefined;
    if (rx_ring !== undefined && version === TPACKET_V3) {
      countBlocks(loop, receiving, rx_ring, received, stuck);
      const at = received * rx_ring.block_size;
      if (!stuck) open = wordsOf(receiving, at);
    } else if (rx_ring !== undefined) {
      countFrames(loop, receiving, rx_ring, received);
    }
    if (tx_ring !== undefined) {
      countSent(loop, memory.bytes.subarray(split), tx_ring, sent, image);
    }
    fill(memory.bytes, parts, open?.byteOffset);
    // From here on the kernel may begin with it.
    open?.setUint32(BLOCK.status, STATUS.kernel, true);
    act(fd, (options) => {
      placePacketSocket(options, image, interfaces);
      if (isToCount) options.int(SOL_SOCKET, SO_DETACH_FILTER, 0);
      filterPacketSocket(options, image);
    });
    // Which begins anew when it was told.
    getOption(fd, SOL_PACKET, OPTION.STATISTICS, STATISTICS);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function socket(type: number): number {
  return Number(
    syscall("socket", BigInt(AF_PACKET), BigInt(type | O.CLOEXEC), 0n),
  );
}

function act(fd: number, plan: (options: OptionSetter) => void): void {
  const program = new Program();
  plan(new OptionSetter(program, fd, "a packet socket with rings"));
  const { failure } = runOwnProgram(program);
  if (failure === undefined) return;
  throw new CkptError(EXIT.failed, failure.purpose, [{
    object: "a packet socket with rings",
    why: describeErrno(failure.errno),
  }]);
}

/** struct tpacket_req3; the first half is struct tpacket_req. */
function request(ring: packet_ring): Uint8Array {
  const { block_size, block_nr, frame_size, frame_nr } = ring;
  const { retire_tmo, sizeof_priv, features } = ring;
  return new Uint8Array(
    new Uint32Array([
      ...[block_size, block_nr, frame_size, frame_nr],
      ...[retire_tmo, sizeof_priv, features],
    ]).buffer,
  );
}

/** The loopback device, by which the socket gets packets of ckpt's own. */
class Loop implements Disposable {
  /** Bytes of a packet. */
  readonly largest: number;
  readonly #sender: number;
  readonly #address: Uint8Array<ArrayBuffer>;

  /** @param fd of the socket; @param receives it is to get packets, too */
  constructor(readonly fd: number, receives: boolean) {
    this.#address = loopAddress(interfaceIndex(fd, "lo"));
    this.largest = Math.min(interfaceMtu(fd, "lo"), LARGEST_PACKET);
    this.#sender = socket(SOCK.DGRAM);
    if (!receives) return;
    try {
      act(fd, (options) => {
        options.attach(SO.ATTACH_FILTER, filter());
        const address = options.program.bytes(this.#address);
        options.program.call(
          "bind",
          [fd, address, ADDRESS],
          "binding a packet socket to the loopback device",
        );
      });
    } catch (error) {
      close(this.#sender);
      throw error;
    }
  }

  /** Sends a packet that it gets. */
  send(length: number): void {
    const packet = new Uint8Array(length);
    wordsOf(packet).setUint32(0, COOKIE);
    this.#send(this.#sender, packet);
  }

  /** Lets it send what its ring has to be sent. */
  flush(): void {
    this.#send(this.fd, undefined);
  }

  #send(fd: number, packet: Uint8Array<ArrayBuffer> | undefined): void {
    try {
      syscall(
        "sendto",
        BigInt(fd),
        packet === undefined ? 0n : addressOf(packet),
        BigInt(packet?.length ?? 0),
        MSG_DONTWAIT,
        addressOf(this.#address),
        BigInt(ADDRESS),
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(EXIT.failed, "bringing a ring to where it was", [{
        object: "a packet socket with rings",
        why: `sending by the loopback device: ${describeErrno(error.errno)}`,
        remedy: "turn it on: ip link set lo up",
      }], { cause: error });
    }
  }

  [Symbol.dispose](): void {
    close(this.#sender);
  }
}

/** struct sockaddr_ll */
function loopAddress(index: number): Uint8Array<ArrayBuffer> {
  const address = new Uint8Array(ADDRESS);
  const view = wordsOf(address);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, PROTOCOL);
  view.setInt32(4, index, true);
  view.setUint8(11, 6);
  return address;
}

/** Only what {@link Loop.send} has sent. */
function filter(): Uint8Array {
  const code = new Uint8Array(32);
  const view = wordsOf(code);
  const set = (n: number, op: number, skip: number, k: number) => {
    view.setUint16(8 * n, op, true);
    view.setUint8(8 * n + 3, skip);
    view.setUint32(8 * n + 4, k, true);
  };
  set(0, 0x20, 0, SKF_NET_OFF); // load a word
  set(1, 0x15, 1, COOKIE); // else skip
  set(2, 0x06, 0, 0xffffffff); // all of it
  set(3, 0x06, 0, 0); // nothing
  return code;
}

function wait(isThere: () => boolean): void {
  const end = Date.now() + PATIENCE_MS;
  while (!isThere()) {
    if (Date.now() > end) {
      throw new CkptError(EXIT.failed, "bringing a ring to where it was", [{
        object: "a packet socket with rings",
        why: "a packet that was sent by the loopback device does not arrive",
        remedy: "restore again; a firewall must not drop them",
      }]);
    }
    pause(0.05);
  }
}

/** Lets the kernel fill as many frames as it had. */
function countFrames(
  loop: Loop,
  memory: Uint8Array<ArrayBuffer>,
  ring: packet_ring,
  count: number,
): void {
  for (let frame = 0; frame < count; frame++) {
    const view = wordsOf(memory, frameAt(ring, frame));
    loop.send(SMALLEST_PACKET);
    wait(() => (view.getUint32(0, true) & STATUS.user) !== 0);
    view.setBigUint64(0, 0n, true);
  }
}

/**
 * Lets the kernel fill as many blocks as it had (prb_retire_current_block).
 * After the last of them it finds the next one in use, and waits until that is
 * given back: it opens it then when a packet comes.
 */
function countBlocks(
  loop: Loop,
  memory: Uint8Array<ArrayBuffer>,
  { block_size, block_nr }: packet_ring,
  active: number,
  stuck: boolean,
): void {
  const block = (n: number) => wordsOf(memory, n % block_nr * block_size);
  const count = active === 0 && stuck ? block_nr : active;
  const length = Math.min(block_size, loop.largest);
  for (let n = 0; n < count; n++) {
    const isRetired = () =>
      (block(n).getUint32(BLOCK.status, true) & STATUS.user) !== 0;
    if (n === count - 1) {
      block(n + 1).setUint32(BLOCK.status, STATUS.user, true);
    }
    while (!isRetired()) {
      const packets = block(n).getUint32(BLOCK.packets, true);
      loop.send(length);
      wait(() =>
        isRetired() || block(n).getUint32(BLOCK.packets, true) !== packets
      );
    }
  }
}

/** Lets the kernel send as many frames as it had. */
function countSent(
  loop: Loop,
  memory: Uint8Array<ArrayBuffer>,
  ring: packet_ring,
  count: number,
  { entry: { type, version = 0, vnet_hdr } }: PacketSocketImage,
): void {
  const { bytes, length, mac, net } = SENT_HEADER[version];
  const content = (type === SOCK.RAW ? ETHERNET_HEADER : 0) + 1 +
    (vnet_hdr ? VNET_HEADER : 0);
  for (let frame = 0; frame < count; frame++) {
    const view = wordsOf(memory, frameAt(ring, frame));
    view.setUint32(length, content, true);
    // Where it begins, with PACKET_TX_HAS_OFF.
    view.setUint16(mac, bytes, true);
    view.setUint16(net, bytes, true);
    const at = statusAt(version);
    view.setUint32(at, STATUS.sendRequest, true);
    loop.flush();
    const pending = STATUS.sendRequest | STATUS.sending;
    wait(() => (view.getUint32(at, true) & pending) === 0);
  }
}

/** @param start of a block whose header is the kernel's, and stays */
function fill(
  memory: Uint8Array,
  parts: readonly { readonly offset: number; readonly content: Uint8Array }[],
  start?: number,
): void {
  const end = start === undefined ? 0 : start + BLOCK.header;
  memory.fill(0, 0, start ?? 0);
  memory.fill(0, end);
  for (const { offset, content } of parts) {
    const after = offset + content.length;
    const before = Math.min(after, start ?? 0);
    if (offset < before) {
      memory.set(content.subarray(0, before - offset), offset);
    }
    const from = Math.max(offset, end);
    if (from < after) memory.set(content.subarray(from - offset), from);
  }
}
