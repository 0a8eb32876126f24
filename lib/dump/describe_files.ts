/** What a process has open, as entries of files.img and fdinfo-N.img. */
import { DELETED_MARK } from "../proc/maps.ts";
import { deviceNumbers, type FileStatus, O } from "../ffi/syscall.ts";
import {
  type Description,
  type Descriptor,
  FD_CLOEXEC,
} from "../files/descriptors.ts";
import { type FileTable, NO_OWNER } from "../files/file_table.ts";
import { dumpBpfMap } from "../files/bpf_map.ts";
import { KINDS } from "../files/kinds.ts";
import { dumpMemfd } from "../files/memfd.ts";
import { dumpNamespace } from "../files/namespaces.ts";
import { dumpDeadSlave, dumpTerminal, slaveIndex } from "../files/terminal.ts";
import { TreeSockets } from "../files/sockets.ts";
import {
  fd_types,
  type fdinfo_entry,
  type fs_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import type { Vma } from "../mm/vma.ts";
import { describeObject } from "./describe_objects.ts";
import { pipeId } from "./describe_pipes.ts";
import {
  describePeerOutside,
  describeSocket,
  type SocketsOfTree,
  socketType,
} from "./describe_sockets.ts";
import type { MemfdNumbers } from "./memfds.ts";
import { isEntered } from "../ns/inside.ts";
import { numberNamespaces } from "../ns/kinds.ts";
import { mappedFileKey, type Survey, type UsedFile } from "./survey.ts";
import type { TreeSurvey } from "./survey_tree.ts";

const NO_SOCKETS: SocketsOfTree = {
  unix: new TreeSockets([]).neighbours(),
  connections: new Map(),
};

export interface DescribedFiles {
  descriptors: fdinfo_entry[];
  terminals: tty_info_entry[];
  exeId: number;
  fs: fs_entry;
}

/**
 * Gives every file its entry, and every mapping the id of its file (`shmid`).
 *
 * @param table the same for all processes of a tree, so that a description
 * that several of them have open has one entry
 */
export function describeFiles(
  survey: Survey,
  table: FileTable,
  memfds: MemfdNumbers = new Map(),
  sockets = NO_SOCKETS,
): DescribedFiles {
  const statuses = new Map(
    survey.mappedFiles.map(({ vma, status }) => [mappedFileKey(vma), status!]),
  );
  const statusOf = (vma: Vma) => statuses.get(mappedFileKey(vma))!;
  const mountIds = new Map(
    survey.mappedFiles.map(({ vma, mountId }) => [mappedFileKey(vma), mountId]),
  );
  const exeId = addUsed(table, survey.exe);
  for (const vma of survey.vmas.vmas) {
    if (vma.memfd) vma.entry.shmid = BigInt(addMapped(table, vma, memfds));
    else if (vma.path !== undefined) {
      vma.entry.shmid = BigInt(
        table.addReached(
          vma.path,
          vma.entry.fdflags ?? 0,
          statusOf(vma),
          mountIds.get(mappedFileKey(vma)),
        ),
      );
    }
  }
  const terminals: tty_info_entry[] = [];
  /** Ids of io_urings, and of packet sockets, which may be mapped. */
  const rings = new Map<bigint, number>();
  const descriptors = survey.descriptors.descriptors.map((descriptor) => {
    const { description } = descriptor;
    const id = table.once(
      description,
      () =>
        addDescription(table, terminals, description, survey, memfds, sockets),
    );
    const { kind, socket, status: { ino } } = description;
    if (kind === "io_uring" || socket?.family === "packet") rings.set(ino, id);
    return describeDescriptor(descriptor, id);
  });
  for (const { entry, inode } of survey.vmas.vmas) {
    if (isRingArea(entry) || entry.status === VMA_STATUS.SOCKET) {
      entry.shmid = BigInt(rings.get(inode)!);
    }
  }
  return {
    descriptors,
    terminals,
    exeId,
    fs: {
      cwd_id: addUsed(table, survey.cwd),
      root_id: addUsed(table, survey.root),
      umask: survey.status.umask,
    },
  };
}

/** Descriptors that no process has, because they are in flight. */
export interface DescribedFlight {
  /** Of them and of others that processes have, too. */
  readonly descriptions: readonly Description[];
  readonly terminals: readonly tty_info_entry[];
  /** By the numbers that ckpt has for them. */
  readonly ids: ReadonlyMap<number, number>;
}

/** Gives them their entries, when all processes have theirs. */
export function describeFlight(
  { flight, processes: [root] }: TreeSurvey,
  table: FileTable,
  memfds: MemfdNumbers,
  sockets: SocketsOfTree,
): DescribedFlight {
  const terminals: tty_info_entry[] = [];
  const ids = new Map(flight.map(({ fd, description }) => [
    fd,
    table.once(
      description,
      () =>
        addDescription(table, terminals, description, root, memfds, sockets),
    ),
  ]));
  const descriptions = flight.map(({ description }) => description);
  return { descriptions, terminals, ids };
}

/** A memfd that is mapped: one entry for each way of opening it. */
function addMapped(
  table: FileTable,
  { inode, entry }: Vma,
  memfds: MemfdNumbers,
): number {
  const flags = O.LARGEFILE | (entry.fdflags ?? O.RDONLY);
  return table.once(`memfd ${inode} ${flags}`, () =>
    table.add((id) => ({
      type: fd_types.MEMFD,
      id,
      memfd: dumpMemfd(id, memfds.get(inode)!, flags, 0n, NO_OWNER),
    })));
}

function addUsed(
  table: FileTable,
  { path, status, mountId }: UsedFile,
): number {
  return table.addReached(path, 0, status, mountId);
}

function describeDescriptor(
  { fd, closeOnExec, description }: Descriptor,
  id: number,
): fdinfo_entry {
  return {
    id,
    flags: closeOnExec ? FD_CLOEXEC : 0,
    type: description.kind === "object"
      ? KINDS[description.object!.kind].type
      : description.kind === "socket"
      ? socketType(description)
      : KINDS[description.kind].type,
    fd,
  };
}

function addDescription(
  table: FileTable,
  terminals: tty_info_entry[],
  description: Description,
  survey: Survey,
  memfds: MemfdNumbers,
  sockets: SocketsOfTree,
): number {
  const { kind, link, flags, pos, owner, status, mountId } = description;
  switch (kind) {
    case "named":
    case "tun":
    case "device": {
      const file = { path: link, flags, pos, owner, status, mountId };
      const { target } = description;
      if (target === undefined) return table.addNamed(file);
      const path = link.endsWith(DELETED_MARK)
        ? link.slice(0, -DELETED_MARK.length)
        : link;
      return table.addOfEnded({ ...file, path }, target);
    }
    case "external":
      return table.add((id) => ({
        type: fd_types.REG,
        id,
        reg: {
          id,
          flags,
          pos,
          fown: owner,
          name: `file[${description.mountId.toString(16)}:${status.ino}]`,
          ext: true,
          build_id: [],
        },
      }));
    case "pipe":
    case "external pipe": {
      const pipe_id = pipeId(table, description);
      return table.add((id) => ({
        type: fd_types.PIPE,
        id,
        pipe: { id, pipe_id, flags, fown: owner },
      }));
    }
    case "fifo": {
      const file = { path: link, flags, pos, owner, status, mountId };
      const regf_id = table.addNamed(file);
      const pipe_id = pipeId(table, description);
      return table.add((id) => ({
        type: fd_types.FIFO,
        id,
        fifo: { id, pipe_id, regf_id },
      }));
    }
    case "io_uring":
      return table.addUnreached(`/${link}`, flags, pos, owner);
    case "queue":
      return table.addUnreached(link, flags, pos, owner);
    case "bpf map":
      return table.add((id) => ({
        type: fd_types.BPFMAP,
        id,
        bpf: dumpBpfMap(id, description.map!, flags, pos, owner),
      }));
    case "namespace":
      return table.add((id) => ({
        type: fd_types.NS,
        id,
        nsf: dumpNamespace(id, link, flags, numberNamespaces(isEntered)),
      }));
    case "socket":
      describePeerOutside(description, sockets, table);
      return table.add((id) => describeSocket(id, description, sockets));
    case "object":
      return table.add((id) => describeObject(id, description));
    case "memfd":
      return table.add((id) => ({
        type: fd_types.MEMFD,
        id,
        memfd: dumpMemfd(id, memfds.get(status.ino)!, flags, pos, owner),
      }));
    case "pidfd":
      return table.add((id) => ({
        type: fd_types.PIDFD,
        id,
        pidfd: {
          id,
          ino: Number(BigInt.asUintN(32, status.ino)),
          // As pidfd_open(2) takes them: CRIU hands on what it is told.
          flags: flags & ~O.ACCMODE,
          nspid: description.target!,
          fown: owner,
        },
      }));
    case "dead pty":
    case "pty":
    case "terminal":
      return addTerminal(table, terminals, description, survey);
  }
}

function addTerminal(
  table: FileTable,
  terminals: tty_info_entry[],
  { kind, link, flags, owner, status, mountId, terminal }: Description,
  survey: Survey,
): number {
  const reached = table.addNamed({
    path: kind === "dead pty" ? link.replace(DELETED, "") : link,
    flags,
    pos: 0n,
    owner: NO_OWNER,
    status,
    mountId,
  });
  const info = terminal !== undefined
    ? dumpTerminal(terminal, status)
    : kind === "dead pty"
    ? dumpDeadSlave(slaveIndex(status.rdev)!, status)
    : describeTerminal(status, survey);
  const infos = [info];
  // That it was open once is told by its entry.
  if (terminal?.end === "master" && terminal.master.isHungUp) {
    const end = { ...terminal, end: "slave", isExclusive: false } as const;
    infos.push(dumpTerminal(end, terminal.master.slave.status));
  }
  for (const info of infos) {
    if (!terminals.some(({ id }) => id === info.id)) terminals.push(info);
  }
  return table.add((id) => ({
    type: fd_types.TTY,
    id,
    tty: {
      id,
      tty_info_id: info.id,
      flags,
      fown: owner,
      regf_id: reached,
    },
  }));
}

/** What /proc writes behind the path of a slave whose master is closed. */
const DELETED = / \(deleted\)$/;
const FIRST_PTY_SLAVE_MAJOR = 136;
const LAST_PTY_SLAVE_MAJOR = 143;
const MINORS_OF_MAJOR = 256;
/** CRIU's numbers for terminals that have no index of their own. */
const INDEX = { console: 1002, vt: 1004, current: 1006 };

/** A terminal of the outside: only which one it is, its owner keeps its state. */
function describeTerminal(
  status: FileStatus,
  { stat }: Survey,
): tty_info_entry {
  const { major, minor } = deviceNumbers(status.rdev);
  const pty = major >= FIRST_PTY_SLAVE_MAJOR && major <= LAST_PTY_SLAVE_MAJOR;
  const index = pty
    ? (major - FIRST_PTY_SLAVE_MAJOR) * MINORS_OF_MAJOR + minor
    : major === 4
    ? INDEX.vt
    : minor === 0
    ? INDEX.current
    : INDEX.console;
  const type = pty
    ? TtyType.PTY
    : major === 4
    ? TtyType.VT
    : minor === 0
    ? TtyType.CTTY
    : TtyType.CONSOLE;
  return {
    id: index * 2,
    type,
    locked: false,
    exclusive: false,
    packet_mode: false,
    sid: stat.session,
    pgrp: stat.pgrp,
    rdev: Number(status.rdev),
    dev: Number(status.dev),
    ...(pty ? { pty: { index } } : {}),
  };
}
