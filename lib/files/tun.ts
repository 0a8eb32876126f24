/**
 * Network devices that a program makes and serves (/dev/net/tun,
 * Documentation/networking/tuntap.rst): what is seen of one of its queues, and
 * how it is attached again.
 */
import { EINVAL } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  deviceNumbers,
  type FileStatus,
  O,
  open,
  S_IF,
  stat,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import type {
  ckpt_tun_entry,
  ckpt_tun_link_entry,
} from "../image/schema.gen.ts";

const MISC_MAJOR = 10;
const TUN_MINOR = 200;

/** linux/if_tun.h */
const TUN = {
  SETIFF: 0x400454can,
  SETOWNER: 0x400454ccn,
  SETGROUP: 0x400454cen,
  SETOFFLOAD: 0x400454d0n,
  GETIFF: 0x800454d2n,
  GETSNDBUF: 0x800454d3n,
  SETSNDBUF: 0x400454d4n,
  GETVNETHDRSZ: 0x800454d7n,
  GETFILTER: 0x801054dbn,
  SETVNETHDRSZ: 0x400454d8n,
  SETIFINDEX: 0x400454dan,
  SETVNETLE: 0x400454dcn,
  GETVNETLE: 0x800454ddn,
  SETVNETBE: 0x400454den,
  GETVNETBE: 0x800454dfn,
  GETDEVNETNS: 0x54e3n,
} as const;
const IFF = {
  TUN: 1,
  TAP: 2,
  NAPI: 0x10,
  NAPI_FRAGS: 0x20,
  MULTI_QUEUE: 0x100,
  PERSIST: 0x800,
  /** As an answer, the same bit says that there is no filter. */
  NO_PI: 0x1000,
  ONE_QUEUE: 0x2000,
  VNET_HDR: 0x4000,
} as const;

/** struct ifreq: a name, and flags behind it. */
const IFREQ = 40;
const IFNAMSIZ = 16;
const POLLIN = 1;
const LARGEST = 0x7fffffff;

/** A queue of a device. */
export interface SeenTun {
  /** Undefined: none is attached that the kernel tells of. */
  readonly name: string | undefined;
  /** IFF_*, as TUNGETIFF tells them. */
  readonly flags: number;
  /** Bytes of the header before each packet (IFF_VNET_HDR). */
  readonly headerSize: number;
  readonly sendBuffer: number;
  readonly littleEndian: boolean;
  readonly bigEndian: boolean;
  /** TUN_F_* */
  readonly offloads: number;
  /** A filter is, or was, attached to it (TUNATTACHFILTER). */
  readonly hasFilter: boolean;
  /** Its device is in ckpt's network namespace. */
  readonly isHere: boolean;
  /** Packets wait to be read. */
  readonly hasUnread: boolean;
}

export function isTun({ mode, rdev }: Pick<FileStatus, "mode" | "rdev">) {
  if ((mode & S_IF.MT) !== S_IF.CHR) return false;
  const { major, minor } = deviceNumbers(rdev);
  return major === MISC_MAJOR && minor === TUN_MINOR;
}

/**
 * @param fd of ckpt's own
 * @param events what poll(2) tells of it
 */
export function lookAtTun(fd: number, events: number): SeenTun {
  const request = new Uint8Array(IFREQ);
  try {
    syscall("ioctl", BigInt(fd), TUN.GETIFF, addressOf(request));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return NOT_ATTACHED;
  }
  const name = decodeText(request.slice(0, request.indexOf(0)));
  return {
    name,
    flags: new DataView(request.buffer).getUint16(IFNAMSIZ, true),
    headerSize: number(fd, TUN.GETVNETHDRSZ),
    sendBuffer: number(fd, TUN.GETSNDBUF),
    littleEndian: flag(fd, TUN.GETVNETLE),
    bigEndian: flag(fd, TUN.GETVNETBE),
    offloads: offloadsOf(name),
    hasFilter: hasFilter(fd),
    isHere: isHere(fd),
    hasUnread: (events & POLLIN) !== 0,
  };
}

const NOT_ATTACHED: SeenTun = {
  ...{ name: undefined, flags: 0, headerSize: 0, sendBuffer: 0, offloads: 0 },
  ...{ littleEndian: false, bigEndian: false, hasFilter: false },
  ...{ isHere: true, hasUnread: false },
};

function number(fd: number, request: bigint): number {
  const value = new Int32Array(1);
  const bytes = new Uint8Array(value.buffer);
  syscall("ioctl", BigInt(fd), request, addressOf(bytes));
  return value[0];
}

/** The kernel may not know of the order of bytes in headers. */
function flag(fd: number, request: bigint): boolean {
  try {
    return number(fd, request) !== 0;
  } catch (error) {
    if (error instanceof SyscallError && error.errno === EINVAL) return false;
    throw error;
  }
}

/** struct sock_fprog; only of a tap. */
function hasFilter(fd: number): boolean {
  const program = new Uint8Array(16);
  try {
    syscall("ioctl", BigInt(fd), TUN.GETFILTER, addressOf(program));
  } catch (error) {
    if (error instanceof SyscallError && error.errno === EINVAL) return false;
    throw error;
  }
  return new DataView(program.buffer).getUint16(0, true) !== 0;
}

function isHere(fd: number): boolean {
  const namespace = Number(syscall("ioctl", BigInt(fd), TUN.GETDEVNETNS));
  try {
    return stat(namespace).ino === stat("/proc/thread-self/ns/net").ino;
  } finally {
    close(namespace);
  }
}

const SIOCETHTOOL = 0x8946n;
const ETHTOOL_GFEATURES = 0x3a;
const FEATURE_BLOCKS = 2;
/** TUN_F_* by the bits of features (linux/netdev_features.h) they stand for. */
const OFFLOADS: readonly (readonly [flags: number, bit: number])[] = [
  [1, 3], // CSUM: HW_CSUM
  [2, 16], // TSO4: TSO
  [4, 20], // TSO6
  [8, 18], // TSO_ECN
  [0x60, 33], // USO4, USO6: GSO_UDP_L4
];

/** What TUNSETOFFLOAD was told, by the features that the device has for it. */
function offloadsOf(device: string): number {
  const command = new Uint8Array(8 + 16 * FEATURE_BLOCKS);
  const view = new DataView(command.buffer);
  view.setUint32(0, ETHTOOL_GFEATURES, true);
  view.setUint32(4, FEATURE_BLOCKS, true);
  const request = new Uint8Array(IFREQ);
  request.set(encodeText(device));
  new DataView(request.buffer).setBigUint64(
    IFNAMSIZ,
    addressOf(command),
    true,
  );
  const fd = Number(syscall("socket", 2n, BigInt(2 | O.CLOEXEC), 0n));
  try {
    syscall("ioctl", BigInt(fd), SIOCETHTOOL, addressOf(request));
  } finally {
    close(fd);
  }
  const isActive = (bit: number) =>
    (view.getUint32(8 + 16 * (bit >>> 5) + 8, true) >>> (bit & 31) & 1) !== 0;
  return OFFLOADS.reduce(
    (sum, [flags, bit]) => isActive(bit) ? sum | flags : sum,
    0,
  );
}

/** @returns why it cannot be saved, undefined when it can */
export function tunProblem(
  { name, hasFilter, isHere }: SeenTun,
): { why: string; remedy?: string } | undefined {
  if (name === undefined) {
    return {
      why: "it is no queue of a network device (tun), or a detached one " +
        "(TUNSETQUEUE), of which the kernel does not tell whose it is",
      remedy: "dump again when it is attached",
    };
  }
  if (!isHere) {
    return {
      why:
        `its network device ${name} is in another network namespace, which ` +
        "is not supported",
    };
  }
  return hasFilter
    ? {
      why: `a filter is or was attached to its network device ${name} ` +
        "(TUNATTACHFILTER), and the kernel does not give its instructions",
    }
    : undefined;
}

/**
 * The entry of ckpt-tuns.img.
 *
 * @param link of a device that is to be made again by this queue
 */
export function describeTun(
  seen: SeenTun,
  id: number,
  noPi: boolean,
  link: ckpt_tun_link_entry | undefined,
): ckpt_tun_entry {
  return {
    id,
    name: seen.name!,
    flags: seen.flags & ~IFF.NO_PI,
    no_pi: noPi,
    header_size: seen.headerSize,
    send_buffer: seen.sendBuffer,
    offloads: seen.offloads,
    little_endian: seen.littleEndian || undefined,
    big_endian: seen.bigEndian || undefined,
    link,
  };
}

export function isPersistent({ flags }: Pick<SeenTun, "flags">): boolean {
  return (flags & IFF.PERSIST) !== 0;
}

/** Flags that TUNSETIFF takes. */
const SETTABLE = IFF.TUN | IFF.TAP | IFF.NAPI | IFF.NAPI_FRAGS |
  IFF.MULTI_QUEUE | IFF.ONE_QUEUE | IFF.VNET_HDR;

/**
 * Attaches a queue, which makes the device where there is none.
 *
 * @param file path of /dev/net/tun
 * @returns a descriptor
 * @throws SyscallError
 */
export function makeTun(
  file: string,
  flags: number,
  { name, flags: kind, no_pi, header_size, send_buffer, ...rest }:
    ckpt_tun_entry,
): number {
  const fd = open(encodeText(file), flags | O.CLOEXEC);
  try {
    const ioctl = (request: bigint, value: bigint) =>
      syscall("ioctl", BigInt(fd), request, value);
    const set = (request: bigint, value: number) =>
      ioctl(request, addressOf(new Uint8Array(Int32Array.of(value).buffer)));
    const { link } = rest;
    if (link !== undefined) set(TUN.SETIFINDEX, link.index);
    const request = new Uint8Array(IFREQ);
    request.set(encodeText(name));
    new DataView(request.buffer).setUint16(
      IFNAMSIZ,
      kind & SETTABLE | (no_pi ? IFF.NO_PI : 0),
      true,
    );
    ioctl(TUN.SETIFF, addressOf(request));
    set(TUN.SETVNETHDRSZ, header_size);
    if (rest.little_endian) set(TUN.SETVNETLE, 1);
    if (rest.big_endian) set(TUN.SETVNETBE, 1);
    if (send_buffer !== LARGEST) set(TUN.SETSNDBUF, send_buffer);
    if (link?.owner !== undefined) ioctl(TUN.SETOWNER, BigInt(link.owner));
    if (link?.group !== undefined) ioctl(TUN.SETGROUP, BigInt(link.group));
    ioctl(TUN.SETOFFLOAD, BigInt(rest.offloads));
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}
