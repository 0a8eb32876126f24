/**
 * Unix sockets: what is seen of one, what cannot be saved, and its entry in
 * files.img. make_unix_sockets.ts makes them again.
 */
import {
  close,
  type FileStatus,
  O,
  open,
  readLink,
  stat,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import type {
  ckpt_credentials_entry,
  file_perms_entry,
  fown_entry,
  sk_opts_entry,
  unix_sk_entry,
} from "../image/schema.gen.ts";
import { namesIn, openInRoot, splitPath, statx } from "../ghost/calls.ts";
import type { UnixDiag } from "./sock_diag.ts";
import {
  readPeer,
  readSocketOptions,
  type SocketOptions,
} from "./socket_options.ts";
import { SOCK, type SocketKind } from "./socket_kind.ts";
import { NO_OWNER } from "./file_table.ts";
import type { SocketCalls } from "./socket_calls.ts";

/** net/tcp_states.h. */
export const STATE = { ESTABLISHED: 1, CLOSE: 7, LISTEN: 10 } as const;
export const SHUT_BOTH = 3;

export interface SeenUnixSocket {
  readonly family: "unix";
  readonly diag: UnixDiag;
  readonly options: SocketOptions;
  /** SO_PEERCRED; undefined where there is none. */
  readonly peer: ckpt_credentials_entry | undefined;
  /** The file it is bound to. */
  readonly file: BoundFile | undefined;
  /** poll(2) tells of an error that nobody has asked for yet. */
  readonly hasError: boolean;
  /** Memory of what it has sent and its peer has not read; of some types. */
  readonly unread: number;
  /** poll(2) tells that it can be read: something, or the end. */
  readonly canBeRead: boolean;
}

export interface BoundFile {
  /** Where a name that is no absolute path begins. */
  readonly directory: string | undefined;
  /** It has no name any more, or only others. */
  readonly deleted: boolean;
  /** Paths of its other names (hard links). */
  readonly otherNames: readonly string[];
  /** Why it cannot be found by the name that it was bound to. */
  readonly why: string | undefined;
  readonly access: file_perms_entry;
  /** The mount that it is on, in a mount namespace of the tree's own. */
  readonly mount?: number;
}

/** What leads to the root of the tree's own mount namespace that has a mount. */
export type WayToRoot = (mount: number) => string | undefined;

const SIOCUNIXFILE = 0x89e0n;
const POLLIN = 0x1;
const PERMISSIONS = 0o7777;

/**
 * @param fd a descriptor of ckpt's own for the socket
 * @param calls what these tell of it
 * @param wayToRoot undefined: the tree has no mount namespaces of its own
 */
export function lookAtUnixSocket(
  fd: number,
  diag: UnixDiag,
  kind: SocketKind,
  calls: SocketCalls,
  hasError: boolean,
  wayToRoot?: WayToRoot,
): SeenUnixSocket {
  return {
    family: "unix",
    diag,
    options: readSocketOptions(fd, kind),
    peer: readPeer(fd),
    file: isPath(diag.name) ? lookAtFile(fd, diag.name, wayToRoot) : undefined,
    hasError,
    unread: diag.state === STATE.ESTABLISHED ? calls.unread : 0,
    canBeRead: (calls.events & POLLIN) !== 0,
  };
}

/** A name that is a path, not an abstract one. */
export function isPath(name: Uint8Array): boolean {
  return name.length > 0 && name[0] !== 0;
}

/** How errors write a name. */
export function nameText(name: Uint8Array): string {
  if (name.length === 0) return "without a name";
  if (isPath(name)) return pathOf(name);
  return `@${decodeText(name.slice(1)).replaceAll("\0", "@")}`;
}

/** The path in a sun_path, which may end with zeros. */
export function pathOf(name: Uint8Array): string {
  const end = name.indexOf(0);
  return decodeText(end === -1 ? name.slice() : name.slice(0, end));
}

function lookAtFile(
  fd: number,
  name: Uint8Array,
  wayToRoot: WayToRoot | undefined,
): BoundFile | undefined {
  let found: number;
  try {
    found = Number(syscall("ioctl", BigInt(fd), SIOCUNIXFILE));
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  try {
    const status = stat(found);
    const at = `/proc/self/fd/${found}`;
    const link = decodeText(readLink(at));
    const mount = wayToRoot && Number(statx(at).mountId);
    const way = mount === undefined ? undefined : wayToRoot?.(mount);
    if (way === undefined) {
      return boundFile(pathOf(name), link, status, statusAt, namesIn);
    }
    const root = open(way, O.PATH | O.DIRECTORY);
    try {
      const file = boundFile(
        pathOf(name),
        link,
        status,
        (path) => statusInRoot(root, path),
        (directory) => namesIn(way + directory),
      );
      return { ...file, mount };
    } finally {
      close(root);
    }
  } finally {
    close(found);
  }
}

function statusInRoot(root: number, path: string): FileStatus | undefined {
  let found: number;
  try {
    found = openInRoot(root, path);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  try {
    return stat(found);
  } finally {
    close(found);
  }
}

function statusAt(path: string): FileStatus | undefined {
  try {
    return stat(encodeText(path));
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

const DELETED = " (deleted)";

/**
 * @param name as bound
 * @param link where the kernel says that the file is
 * @param at what is at a path now
 * @param names what is in a directory; other hard links are sought there
 */
export function boundFile(
  name: string,
  link: string,
  status: FileStatus,
  at: (path: string) => FileStatus | undefined,
  names: (directory: string) => readonly { name: string }[],
): BoundFile {
  const isIt = (path: string) => {
    const found = at(path);
    return found?.ino === status.ino && found.dev === status.dev;
  };
  const where = link.endsWith(DELETED) && !isIt(link)
    ? link.slice(0, -DELETED.length)
    : link;
  const relative = !name.startsWith("/");
  const below = `/${name.replace(/^(\.\/+)+/, "")}`;
  const directory = relative && where.endsWith(below)
    ? where.slice(0, -below.length) || "/"
    : undefined;
  const same = status.nlink > 0n && (!relative || directory !== undefined) &&
    isIt(relative ? where : name);
  const known = same ? 1n : 0n;
  const beside = splitPath(where).directory;
  const itself = `${beside === "/" ? "" : beside}/${splitPath(name).name}`;
  const otherNames = status.nlink === known ? [] : linksIn(beside, names)
    .filter((other) => other !== itself || !same).filter(isIt);
  const missing = status.nlink - known - BigInt(otherNames.length);
  return {
    directory,
    deleted: !same,
    otherNames,
    why: missing > 0n && !same && otherNames.length === 0
      ? `the file it is bound to is ${where} now, and not ${name}`
      : missing > 0n
      ? `the file it is bound to has ${missing} more names, which are not in ` +
        "its directory"
      : undefined,
    access: {
      mode: status.mode & PERMISSIONS,
      uid: status.uid,
      gid: status.gid,
    },
  };
}

function linksIn(
  directory: string,
  names: (directory: string) => readonly { name: string }[],
): string[] {
  const prefix = directory === "/" ? "/" : `${directory}/`;
  return names(directory).map(({ name }) => prefix + name);
}

/** What has to be known of the other sockets of the tree, and outside. */
export interface UnixNeighbours {
  /** Of the tree, by inode. */
  readonly of: (ino: number) => SeenUnixSocket | undefined;
  /** Those of the tree that others wait at to be accepted. */
  readonly listeners: () => UnixListeners;
  /** "task 12 (name) outside of the program" that holds a socket. */
  readonly holder: (ino: number) => string | undefined;
  /** There may be others of the tree, in flight. */
  readonly mayBeUnseen: boolean;
  /** One that is not of the tree, and that can be connected to by its name. */
  readonly outside: (ino: number) => UnixDiag | undefined;
  /** Its peer may be gone after the restore (--external). */
  readonly isExternal: (ino: number) => boolean;
}

/** @returns why it cannot be saved, undefined when it can */
export function unixSocketProblem(
  socket: SeenUnixSocket,
  others: UnixNeighbours,
): string | undefined {
  const { diag, file, hasError } = socket;
  const { state, type } = diag;
  const outside = (ino: number) =>
    others.holder(ino) ?? "a process outside of the program";
  if (state === STATE.LISTEN) {
    if (file?.why !== undefined) return file.why;
    return pendingProblem(diag, others, outside);
  }
  if (diag.peer === undefined) {
    if (hasError) return UNREAD_ERROR;
    return file?.why;
  }
  if (diag.peer === 0) {
    if (waitsFor(diag, others) !== undefined) return file?.why;
    if (
      type !== SOCK.DGRAM && diag.shutdown !== SHUT_BOTH && !others.mayBeUnseen
    ) {
      return "it waits to be accepted by a process outside of the program";
    }
    if (type === SOCK.DGRAM && hasError) return UNREAD_ERROR;
    return undefined;
  }
  const peer = others.of(diag.peer);
  if (peer === undefined) {
    if (others.isExternal(diag.ino)) return undefined;
    if (others.outside(diag.peer) !== undefined) return file?.why;
    if (others.mayBeUnseen && others.holder(diag.peer) === undefined) return;
    return `its peer is a socket of ${outside(diag.peer)}`;
  }
  if (hasError) return UNREAD_ERROR;
  if (peer.diag.peer === diag.ino) {
    const isBoth = diag.name.length > 0 && peer.diag.name.length > 0;
    if (type === SOCK.DGRAM) return file?.why;
    return isBoth && !isListenerName(diag.name, others) &&
        !isListenerName(peer.diag.name, others)
      ? "both of its ends have names, and the socket that listened is gone; " +
        "that is not supported"
      : undefined;
  }
  if (peer.diag.peer !== undefined) {
    return "its peer has connected to another socket since, which is not " +
      "supported";
  }
  if (peer.diag.name.length === 0) {
    return "its peer has no name, which is not supported";
  }
  return file?.why;
}

const UNREAD_ERROR =
  "it has an error that the program has not seen yet, which is not supported";

/** The sockets of a tree that listen, by what others know of them. */
export class UnixListeners {
  readonly #names = new Set<string>();
  readonly #byWaiting = new Map<number, SeenUnixSocket>();

  constructor(sockets: Iterable<SeenUnixSocket>) {
    for (const socket of sockets) {
      const { state, name, pending } = socket.diag;
      if (state === STATE.LISTEN) this.#names.add(decodeText(name));
      for (const ino of pending) {
        if (!this.#byWaiting.has(ino)) this.#byWaiting.set(ino, socket);
      }
    }
  }

  /** Whether one has this name. */
  hasName(name: Uint8Array): boolean {
    return this.#names.has(decodeText(name));
  }

  /** The one by which a connection waits to be accepted. */
  awaitedBy(ino: number): SeenUnixSocket | undefined {
    return this.#byWaiting.get(ino);
  }
}

function isListenerName(
  name: Uint8Array,
  { listeners }: UnixNeighbours,
): boolean {
  return listeners().hasName(name);
}

export function equalNames(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function pendingProblem(
  { pending }: UnixDiag,
  others: UnixNeighbours,
  outside: (ino: number) => string,
): string | undefined {
  for (const ino of pending) {
    if (ino !== 0 && others.of(ino) === undefined) {
      if (others.mayBeUnseen && others.holder(ino) === undefined) return;
      return `a connection of ${outside(ino)} waits to be accepted`;
    }
  }
  return undefined;
}

/** The socket by which a connection waits to be accepted. */
function waitsFor(
  { ino }: UnixDiag,
  { listeners }: UnixNeighbours,
): SeenUnixSocket | undefined {
  return listeners().awaitedBy(ino);
}

/**
 * Whether it may hold anything: it neither listens nor waits to connect, and
 * could be read when it was looked at.
 */
export function hasQueue(
  { diag: { type, state }, canBeRead }: SeenUnixSocket,
): boolean {
  return canBeRead && (type === SOCK.DGRAM || state === STATE.ESTABLISHED);
}

/** Its peer is gone, and had not read all: the next call tells so. */
export function isReset({ diag, hasError }: SeenUnixSocket): boolean {
  return diag.peer === 0 && diag.type !== SOCK.DGRAM && hasError;
}

/** Whether it has its name from the socket that accepted the connection. */
function isAccepted(
  { state, type, name, peer }: UnixDiag,
  others: UnixNeighbours,
): boolean {
  if (state !== STATE.ESTABLISHED || type === SOCK.DGRAM) return false;
  const other = others.of(peer ?? 0)?.diag.name ?? new Uint8Array(0);
  return name.length > 0 &&
    !(other.length > 0 && isListenerName(other, others));
}

/** A datagram socket that is connected to one that was closed. */
export function hasLostPeer({ diag }: SeenUnixSocket): boolean {
  return diag.peer === 0 && diag.type === SOCK.DGRAM;
}

/** Whether the other end of a connection is not part of the tree. */
function hasOutsidePeer(
  { peer = 0 }: UnixDiag,
  others: UnixNeighbours,
): boolean {
  return peer !== 0 && others.of(peer) === undefined;
}

/** CRIU's mark of a socket that is not part of the tree. */
const EXTERN = 1;

/** The entry of a socket that one of the tree is connected to by its name. */
export function describeOutside(
  { ino, type, name }: UnixDiag,
  id: number,
  opts: sk_opts_entry,
): unix_sk_entry {
  return {
    id,
    ino,
    type,
    state: STATE.CLOSE,
    flags: O.RDWR,
    uflags: EXTERN,
    backlog: 0,
    peer: 0,
    fown: NO_OWNER,
    opts,
    name,
  };
}

/** The entry of files.img. */
export function describeUnixSocket(
  socket: SeenUnixSocket,
  id: number,
  flags: number,
  fown: fown_entry,
  others: UnixNeighbours,
): unix_sk_entry {
  const { diag, options, file } = socket;
  const listener = diag.peer === 0 ? waitsFor(diag, others) : undefined;
  const isCut = hasOutsidePeer(diag, others) &&
    others.outside(diag.peer ?? 0) === undefined;
  const isBound = file !== undefined &&
    (listener !== undefined || !isAccepted(diag, others));
  return {
    id,
    ino: diag.ino,
    type: diag.type,
    // One that others connect to is called connected, too.
    state: diag.type === SOCK.DGRAM && diag.peer === undefined
      ? STATE.CLOSE
      : diag.state,
    flags,
    uflags: 0,
    backlog: diag.backlog,
    peer: listener?.diag.ino ?? (isCut ? 0 : diag.peer ?? 0),
    fown,
    opts: options.opts,
    name: diag.name,
    shutdown: isCut ? SHUT_BOTH : diag.shutdown || undefined,
    file_perms: isBound ? file.access : undefined,
    name_dir: file?.directory,
    deleted: isBound && file.deleted ? true : undefined,
    mnt_id: isBound ? file.mount : undefined,
  };
}
