/**
 * What this host has at the names and ports of the sockets of an image; looked
 * at before anything is restored.
 */
import type { Reason } from "../error.ts";
import { ENOENT } from "../ffi/errno.ts";
import {
  deviceNumbers,
  type FileStatus,
  lstat,
  S_IF,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { BTRFS } from "../ghost/btrfs.ts";
import { fileSystemType, splitPath } from "../ghost/calls.ts";
import { OVERLAY } from "../ghost/overlay.ts";
import { inetProblems } from "./inet_socket.ts";
import { netlinkProblems } from "./netlink_socket.ts";
import { packetProblems } from "./packet_socket.ts";
import { holderOf } from "./outside_holders.ts";
import { type UnixDiag, unixSockets } from "./sock_diag.ts";
import { isOutside, type SocketImages } from "./socket_images.ts";
import { equalNames, isPath, nameText, pathOf } from "./unix_socket.ts";
import { isElsewhere, losesPath } from "./make_unix_sockets.ts";
import { UnixTopology } from "./unix_topology.ts";

/**
 * What this host has at the names and ports of sockets.
 *
 * @param bindsAside whether paths that are gone may be taken
 */
export function takenAddresses(
  images: SocketImages,
  bindsAside: boolean,
): Reason[] {
  const { inet, netlink, packet } = images;
  return [
    ...unixProblems(images, bindsAside),
    ...inetProblems(inet.values()),
    ...netlinkProblems(netlink.values()),
    ...packetProblems(packet.values()),
  ];
}

function unixProblems({ unix }: SocketImages, bindsAside: boolean): Reason[] {
  const sockets = [...unix.values()].filter(({ entry }) => !isOutside(entry));
  if (sockets.every(({ entry }) => entry.name.length === 0)) return [];
  const topology = new UnixTopology(sockets);
  const host = unixSockets();
  return sockets.flatMap((socket) => {
    const { name, name_dir } = socket.entry;
    const isAccepted = topology.isAccepted(socket);
    if (
      name.length === 0 ||
      isAccepted && topology.listener(socket) !== undefined ||
      bindsAside && isPath(name) && (isAccepted || losesPath(socket))
    ) return [];
    const path = absolute(pathOf(name), name_dir);
    const { other_names } = socket.extension;
    const isLost = isPath(name) && !path.startsWith("/");
    const whys = isLost && !bindsAside
      ? [[path, UNKNOWN_DIRECTORY] as const]
      : !isPath(name)
      ? [[nameText(name), whyNameIsTaken(name, host)] as const]
      : [
        ...bindsAside && isElsewhere(socket)
          ? []
          : [[path, whyPathIsTaken(path, host, !isAccepted)] as const],
        ...other_names.map((other) =>
          [other, whyPathIsTaken(other, host, true, true)] as const
        ),
      ];
    return whys.flatMap(([name, why]) =>
      why === undefined ? [] : [{ object: `the Unix socket ${name}`, why }]
    );
  });
}

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
  path: string,
  host: readonly UnixDiag[],
  mayBeStale: boolean,
  isOther = false,
): string | undefined {
  let status: FileStatus;
  try {
    status = lstat(encodeText(path));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.errno === ENOENT ? whyNoDirectory(path) : error.message;
  }
  if ((status.mode & S_IF.MT) !== S_IF.SOCK) {
    return "a file that is no socket has this path now";
  }
  const user = host.find(({ fileIno, fileDevice, name }) =>
    fileIno === Number(BigInt.asUintN(32, status.ino)) &&
    (lastPart(pathOf(name)) === lastPart(path) || status.nlink > 1n ||
      isOther && mayBeOn(fileDevice, path, status))
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

function whyNoDirectory(path: string): string | undefined {
  const directory = path.slice(0, -lastPart(path).length - 1) || "/";
  try {
    lstat(encodeText(directory));
    return undefined;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return `its directory: ${error.message}`;
  }
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
