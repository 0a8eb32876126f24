/**
 * What this host has at the names and ports of the sockets of an image; looked
 * at before anything is restored.
 */
import type { Reason } from "../error.ts";
import { ENOENT } from "../ffi/errno.ts";
import {
  close,
  deviceNumbers,
  type FileStatus,
  lstat,
  O,
  open,
  S_IF,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { BTRFS } from "../ghost/btrfs.ts";
import { fileSystemType, openInRoot, splitPath } from "../ghost/calls.ts";
import { OVERLAY } from "../ghost/overlay.ts";
import { inetProblems } from "./try_inet_sockets.ts";
import { netlinkProblems } from "./netlink_socket.ts";
import { packetProblems } from "./packet_socket.ts";
import { holderOf } from "./outside_holders.ts";
import { type UnixDiag, unixSockets } from "./sock_diag.ts";
import {
  isOutside,
  type SocketImages,
  type UnixSocketImage,
} from "./socket_images.ts";
import { equalNames, isPath, nameText, pathOf } from "./unix_socket.ts";
import { isElsewhere, losesPath, namesOf } from "./unix_paths.ts";
import { UnixTopology } from "./unix_topology.ts";

/**
 * Where the path of a Unix socket begins: at a descriptor of ckpt's, at its own
 * root directory, or in a mount namespace that is not made yet.
 */
export type SocketRoot = number | "own" | "planned";

/** How the tree that is to be restored has its directories. */
export interface TreeDirectories {
  /** See {@link canBindAside}: paths that are gone may be taken. */
  readonly bindsAside: boolean;
  /** See {@link isSplit}. */
  readonly isSplit: boolean;
  /** @param mount of the image */
  readonly rootOf: (mount: number | undefined) => SocketRoot;
}

/** What this host has at the names and ports of sockets. */
export function takenAddresses(
  images: SocketImages,
  directories: TreeDirectories,
): Reason[] {
  const { inet, netlink, packet } = images;
  return [
    ...unixProblems(images, directories),
    ...inetProblems(inet.values()),
    ...netlinkProblems(netlink.values()),
    ...packetProblems(packet.values()),
  ];
}

function unixProblems(
  { unix }: SocketImages,
  directories: TreeDirectories,
): Reason[] {
  const sockets = [...unix.values()].filter(({ entry }) => !isOutside(entry));
  if (sockets.every(({ entry }) => entry.name.length === 0)) return [];
  const topology = new UnixTopology(sockets);
  const host = unixSockets();
  return sockets.flatMap((socket) => {
    const { name } = socket.entry;
    const isAccepted = topology.isAccepted(socket);
    if (
      name.length === 0 ||
      isAccepted && topology.listener(socket) !== undefined
    ) return [];
    const whys = isPath(name)
      ? pathProblems(socket, directories, isAccepted, host)
      : [[nameText(name), whyNameIsTaken(name, host)] as const];
    return whys.flatMap(([name, why]) =>
      why === undefined ? [] : [{ object: `the Unix socket ${name}`, why }]
    );
  });
}

type Problem = readonly [name: string, why: string | undefined];

function pathProblems(
  socket: UnixSocketImage,
  { bindsAside, isSplit, rootOf }: TreeDirectories,
  isAccepted: boolean,
  host: readonly UnixDiag[],
): Problem[] {
  const { name, name_dir, mnt_id } = socket.entry;
  if (bindsAside && (isAccepted || losesPath(socket))) return [];
  const path = absolute(pathOf(name), name_dir);
  if (!bindsAside && isSplit) return [[path, SPLIT]];
  const isMoved = isElsewhere(socket, isSplit);
  if (!bindsAside && !path.startsWith("/")) return [[path, UNKNOWN_DIRECTORY]];
  const root = rootOf(mnt_id);
  if (root === "planned") return [];
  const { other_names } = socket.extension;
  const names = bindsAside && isMoved
    ? namesOf(socket)
    : [path, ...other_names];
  return names.map((name) => [
    name,
    whyPathIsTaken(
      root,
      name,
      host,
      !isAccepted,
      other_names.includes(name),
    ),
  ]);
}

const SPLIT =
  "processes have their directories in common, and the tree is in several " +
  "mount namespaces: it could be bound in another one";

const UNKNOWN_DIRECTORY =
  "nobody knows the directory any more that its name began at, and processes " +
  "of the tree have their directories in common";

/** @returns a relative one where the directory is not known any more */
function absolute(path: string, directory: string | undefined): string {
  return path.startsWith("/") || directory === undefined
    ? path
    : `${directory}/${path}`;
}

function whyNameIsTaken(
  name: Uint8Array,
  host: readonly UnixDiag[],
): string | undefined {
  const taken = host.find((other) => equalNames(other.name, name));
  return taken === undefined
    ? undefined
    : `this name is taken by a socket of ${holderOf(taken.ino)}`;
}

/**
 * @param mayBeStale whether a socket that nobody has is no hindrance
 * @param isOther whether nothing was bound to it by this name
 */
function whyPathIsTaken(
  root: number | "own",
  path: string,
  host: readonly UnixDiag[],
  mayBeStale: boolean,
  isOther: boolean,
): string | undefined {
  const { directory, name } = splitPath(path);
  let fd: number;
  try {
    fd = root === "own"
      ? open(encodeText(directory), O.PATH | O.DIRECTORY)
      : openInRoot(root, directory);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return `its directory: ${error.message}`;
  }
  try {
    const at = `/proc/self/fd/${fd}/${name}`;
    return whyTaken(at, host, mayBeStale, isOther);
  } finally {
    close(fd);
  }
}

/** @param path by which ckpt gets there */
function whyTaken(
  path: string,
  host: readonly UnixDiag[],
  mayBeStale: boolean,
  isOther: boolean,
): string | undefined {
  let status: FileStatus;
  try {
    status = lstat(encodeText(path));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.errno === ENOENT ? undefined : error.message;
  }
  if ((status.mode & S_IF.MT) !== S_IF.SOCK) {
    return "a file that is no socket has this path now";
  }
  const { name } = splitPath(path);
  const user = host.find((other) =>
    other.fileIno === Number(BigInt.asUintN(32, status.ino)) &&
    (splitPath(pathOf(other.name)).name === name || status.nlink > 1n ||
      isOther && mayBeOn(other.fileDevice, path, status))
  );
  if (user !== undefined) {
    return `this path is in use by a socket of ${holderOf(user.ino)}`;
  }
  return mayBeStale
    ? undefined
    : "a socket has this path now, and a connection of the program was made " +
      "by another one that had it";
}

/** These tell other devices than they have. */
const HIDING_DEVICES: ReadonlySet<bigint> = new Set([BTRFS, OVERLAY]);

function mayBeOn(
  device: number | undefined,
  path: string,
  { dev }: FileStatus,
): boolean {
  const { major, minor } = deviceNumbers(dev);
  const MINOR_BITS = 20;
  return device === major * 2 ** MINOR_BITS + minor ||
    HIDING_DEVICES.has(fileSystemType(splitPath(path).directory));
}
