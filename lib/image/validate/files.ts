/** Checks open files, descriptor tables, and what leads from one to another. */

import { O } from "../../ffi/syscall.ts";
import { imageName } from "../kinds.ts";
import {
  type ckpt_file_entry,
  fd_types,
  type fdinfo_entry,
  type fh_entry,
  type file_entry,
  mark_type,
  type memfd_inode_entry,
  remap_type,
  TtyType,
} from "../schema.gen.ts";
import type { Findings } from "./findings.ts";
import { checkSockets } from "./sockets.ts";
import type { TreeTask } from "./tree.ts";

const FILES = imageName("files");
const DEVICE_NAME = /^[^\s/]{1,15}$/;
/** struct ifaddrmsg. */
const SHORTEST_MESSAGE = 8;
const PATH_MAX = 4096;
const SUN_PATH_MAX = 108;
const O_CREAT_EXCL_NOCTTY_TRUNC = 0o1700;
const O_ACCMODE = 3;
/** What the kernel takes for a packet of a pipe (PIPE_BUF). */
const LONGEST_PACKET = 4096;
const PERMISSIONS = 0o7777;
/** Generic netlink gives its families groups of their own. */
const MOST_GROUP_WORDS = 64;
/** The kernel takes no larger pipe (round_pipe_size of fs/pipe.c). */
const LARGEST_PIPE = 2 ** 31;
/** MAX_LFS_FILESIZE of the kernel's include/linux/fs.h. */
const LARGEST_FILE = 2n ** 63n - 1n;

/** Which member of file_entry belongs to a type. */
export const FILE_MEMBERS: Readonly<Record<number, keyof file_entry>> = {
  [fd_types.REG]: "reg",
  [fd_types.PIPE]: "pipe",
  [fd_types.FIFO]: "fifo",
  [fd_types.INETSK]: "isk",
  [fd_types.UNIXSK]: "usk",
  [fd_types.EVENTFD]: "efd",
  [fd_types.EVENTPOLL]: "epfd",
  [fd_types.INOTIFY]: "ify",
  [fd_types.SIGNALFD]: "sgfd",
  [fd_types.PACKETSK]: "psk",
  [fd_types.TTY]: "tty",
  [fd_types.FANOTIFY]: "ffy",
  [fd_types.NETLINKSK]: "nlsk",
  [fd_types.NS]: "nsf",
  [fd_types.TUNF]: "tunf",
  [fd_types.EXT]: "ext",
  [fd_types.TIMERFD]: "tfd",
  [fd_types.MEMFD]: "memfd",
  [fd_types.BPFMAP]: "bpf",
  [fd_types.PIDFD]: "pidfd",
};

/** The files of files.img by id. */
export class FileTable {
  /** False when files.img is missing or damaged: then nothing can be said. */
  known = false;
  /** Numbers of shared memory that memfds have their content in. */
  readonly sharedMemory = new Set<bigint>();
  /** The first type of each id, and the others of those that have several. */
  readonly #types = new Map<number, number>();
  readonly #further = new Map<number, number[]>();

  /** The type of a file that mappings and directories may name, or undefined. */
  type(id: number): number | undefined {
    return this.has(fd_types.REG, id) ? fd_types.REG : this.#types.get(id);
  }

  has(type: number, id: number): boolean {
    return this.#types.get(id) === type ||
      this.#further.size > 0 &&
        (this.#further.get(id)?.includes(type) ?? false);
  }

  /** @returns false when the id is taken; a tun has a regular twin */
  add(type: number, id: number): boolean {
    const first = this.#types.get(id);
    if (first === undefined) {
      this.#types.set(id, type);
      return true;
    }
    const further = this.#further.get(id) ?? [];
    further.push(type);
    this.#further.set(id, further);
    const twins = [first, type];
    return further.length === 1 && twins.includes(fd_types.REG) &&
      twins.includes(fd_types.TUNF);
  }
}

export function checkFiles(findings: Findings): FileTable {
  const table = new FileTable();
  const files = findings.require("files", undefined);
  if (files === undefined) return table;
  table.known = true;
  files.forEach((file, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(FILES, number, field, why);
    if (!table.add(file.type, file.id)) {
      wrong("id", `${file.id} is there twice`);
    }
    checkMember(file, wrong);
  });
  const memfds = new Map(
    (findings.read("memfd", undefined) ?? []).map((inode) =>
      [inode.inode_id, inode] as const
    ),
  );
  files.forEach((file, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(FILES, number, field, why);
    if (REFERRING.has(file.type)) {
      checkReferences(findings, table, memfds, file, wrong);
    }
  });
  checkRemaps(findings, table);
  checkGhosts(findings);
  checkPipes(findings, files);
  checkWatches(findings, files);
  checkContents(findings, files);
  checkTerminals(findings, files);
  checkSockets(findings, files);
  return table;
}

type Wrong = (field: string, why: string) => void;

function checkMember(file: file_entry, wrong: Wrong): void {
  const member = FILE_MEMBERS[file.type];
  if (member === undefined) {
    wrong("type", `${file.type} is no type of file`);
    return;
  }
  for (const other in file) {
    if (other === "type" || other === "id" || other === member) continue;
    wrong(other, `does not belong to a file of type ${file.type}`);
  }
  const content = file[member] as { id: number } | undefined;
  if (content === undefined) wrong(member, "is missing");
  else if (content.id !== file.id) {
    wrong(`${member}.id`, `${content.id} is not ${file.id}, that of the entry`);
  }
  if (file.type === fd_types.REG && file.reg !== undefined) {
    checkRegular(file.reg.name, file.reg.flags, file.reg.ext, wrong);
    return;
  }
  const { pipe, tfd, usk, nlsk, ify, ffy } = file;
  if (pipe !== undefined && (pipe.flags & O_ACCMODE) === O_ACCMODE) {
    wrong("pipe.flags", `0${pipe.flags.toString(8)} is no end of a pipe`);
  }
  if (tfd !== undefined) {
    // CLOCK_REALTIME, MONOTONIC, BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM.
    if (![0, 1, 7, 8, 9].includes(tfd.clockid)) {
      wrong("tfd.clockid", `${tfd.clockid} is no clock of timerfd_create(2)`);
    }
    if (tfd.vnsec >= 1_000_000_000n || tfd.insec >= 1_000_000_000n) {
      wrong("tfd", "has a thousand million nanoseconds or more");
    }
  }
  if (usk !== undefined && usk.name.length > SUN_PATH_MAX) {
    wrong("usk.name", `is ${usk.name.length} bytes long, more than 108`);
  }
  ify?.wd.forEach(({ f_handle }, i) =>
    checkHandle(f_handle, `ify.wd[${i}].f_handle`, wrong)
  );
  ffy?.mark.forEach(({ type, ie, me }, i) => {
    const field = `ffy.mark[${i}]`;
    if (ie !== undefined) {
      checkHandle(ie.f_handle, `${field}.ie.f_handle`, wrong);
    }
    if (me?.path !== undefined && !me.path.startsWith("/")) {
      wrong(`${field}.me.path`, `"${me.path}" is no absolute path`);
    }
    if (
      (type === mark_type.INODE) !== (ie !== undefined) ||
      (type === mark_type.MOUNT) !== (me !== undefined)
    ) wrong(field, `is not as its type ${type} says`);
  });
  // CRIU takes one, and ckpt as many as the kernel has.
  if (nlsk !== undefined && nlsk.groups.length > MOST_GROUP_WORDS) {
    wrong("nlsk.groups", `has ${nlsk.groups.length} words`);
  }
}

/** MAX_HANDLE_SZ of linux/exportfs.h. */
const LONGEST_HANDLE = 128;

function checkHandle(
  { bytes, handle, path }: fh_entry,
  field: string,
  wrong: Wrong,
): void {
  if (bytes > LONGEST_HANDLE || bytes > handle.length * 8) {
    wrong(`${field}.bytes`, `${bytes} are not there`);
  }
  if (path !== undefined && !path.startsWith("/")) {
    wrong(`${field}.path`, `"${path}" is no absolute path`);
  }
}

function checkRegular(
  name: string,
  flags: number,
  external: boolean | undefined,
  wrong: Wrong,
): void {
  if (!external && !name.startsWith("/")) {
    wrong("reg.name", `"${name}" is no absolute path`);
  }
  if (name.length >= PATH_MAX) {
    wrong("reg.name", "is longer than a path can be");
  }
  if (flags & O_CREAT_EXCL_NOCTTY_TRUNC) {
    wrong("reg.flags", `0${flags.toString(8)} would act when opened again`);
  }
}

/** Files of these types name others. */
const REFERRING: ReadonlySet<number> = new Set([
  fd_types.FIFO,
  fd_types.TTY,
  fd_types.MEMFD,
]);

function checkReferences(
  findings: Findings,
  table: FileTable,
  memfds: ReadonlyMap<bigint, memfd_inode_entry>,
  { fifo, tty, memfd }: file_entry,
  wrong: Wrong,
): void {
  const path = (member: string, id: number | undefined) => {
    if (id === undefined || table.has(fd_types.REG, id)) return;
    wrong(`${member}.regf_id`, `${id} is no regular file`);
  };
  if (fifo !== undefined && fifo.regf_id === undefined) {
    wrong("fifo.regf_id", "is missing");
  }
  path("fifo", fifo?.regf_id);
  path("tty", tty?.regf_id);
  if (tty !== undefined) {
    const known = findings.read("tty-info", undefined) ?? [];
    if (!known.some((info) => info.id === tty.tty_info_id)) {
      wrong("tty.tty_info_id", `${tty.tty_info_id} is not in tty-info.img`);
    }
  }
  if (memfd !== undefined) {
    const inode = memfds.get(BigInt(memfd.inode_id));
    if (inode === undefined) {
      wrong("memfd.inode_id", `${memfd.inode_id} is not in memfd.img`);
    } else if (inode.size > 0n) table.sharedMemory.add(BigInt(inode.shmid));
  }
}

/** NR_UNIX98_PTY_MAX of the kernel's include/linux/tty.h. */
const TERMINALS = 2 ** 20;

/** Pseudo terminals: their numbers, and that each has one master. */
function checkTerminals(
  findings: Findings,
  files: readonly file_entry[],
): void {
  const infos = findings.read("tty-info", undefined) ?? [];
  const seen = new Set<number>();
  infos.forEach(({ id, type, pty }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("tty-info"), number, field, why);
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (type !== TtyType.PTY) return;
    const index = pty?.index;
    if (index === undefined) wrong("pty", "is missing");
    else if (index >= TERMINALS || index !== id >> 1) {
      wrong("pty.index", `${index} is not the terminal of entry ${id}`);
    }
  });
  const masters = new Set(
    infos.filter(({ id, type }) => type === TtyType.PTY && (id & 1) === 1)
      .map(({ id }) => id),
  );
  const open = new Set<number>();
  // Slaves whose master is closed.
  const dead = new Set(
    infos.filter(({ type }) => type === TtyType.UNKNOWN).map(({ id }) => id),
  );
  files.forEach(({ tty }, number) => {
    if (tty === undefined) return;
    if (
      tty.regf_id === undefined &&
      (masters.has(tty.tty_info_id) || dead.has(tty.tty_info_id))
    ) findings.add(FILES, number, "tty.regf_id", "is missing");
    if (!masters.has(tty.tty_info_id)) return;
    if (open.has(tty.tty_info_id)) {
      const why = `${tty.tty_info_id} is the master of another file, too`;
      findings.add(FILES, number, "tty.tty_info_id", why);
    }
    open.add(tty.tty_info_id);
  });
  checkTerminalContents(findings, masters);
}

/** What is under way in terminals: no more than fits, and all lines of it. */
function checkTerminalContents(
  findings: Findings,
  masters: ReadonlySet<number>,
): void {
  const lengths = new Map<number, number>();
  (findings.read("tty-data", undefined) ?? []).forEach((entry, number) => {
    const { tty_id, data } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("tty-data"), number, field, why);
    if (lengths.has(tty_id)) wrong("tty_id", `${tty_id} is there twice`);
    lengths.set(tty_id, data.length);
    // The master of a slave is its number with the lowest bit set.
    if (!masters.has(tty_id | 1)) {
      wrong("tty_id", `${tty_id} is no terminal of tty-info.img`);
    }
    if (data.length > MOST_IN_TERMINAL) {
      wrong("data", `${data.length} bytes are more than a terminal can hold`);
    }
  });
  const pids = new Set(
    (findings.read("pstree", undefined) ?? []).map(({ pid }) => pid),
  );
  const seen = new Set<number>();
  (findings.read("ckpt-terminals", undefined) ?? []).forEach(
    (entry, number) => {
      const { index, lines, typed, echoes, mode = 0, without } = entry;
      const wrong = (field: string, why: string) =>
        findings.add(imageName("ckpt-terminals"), number, field, why);
      if (seen.has(index)) wrong("index", `${index} is there twice`);
      seen.add(index);
      if (!masters.has(index * 2 + 1)) {
        wrong("index", `${index} is no terminal of tty-info.img`);
      }
      const sum = lines.reduce((sum, { length }) => sum + length, 0);
      const held = lengths.get(index * 2) ?? 0;
      if (sum > held) {
        wrong("lines", `have ${sum} bytes, but ${held} are there`);
      }
      if (lines.some((line) => line.length === 0 && !line.ended_by_eof)) {
        wrong("lines", "one has no byte that ends it");
      }
      for (const [field, bytes] of Object.entries({ typed, echoes })) {
        if ((bytes?.length ?? 0) > MOST_IN_TERMINAL) {
          wrong(field, "has more bytes than a terminal can hold");
        }
      }
      if (mode > PERMISSIONS) {
        wrong("mode", `0${mode.toString(8)} is more than permissions`);
      }
      for (const pid of without) {
        if (!pids.has(pid)) wrong("without", `${pid} is not in pstree.img`);
      }
    },
  );
}

/** A ring of 4 KiB, and 64 KiB of buffers before it (tty_buffer.c). */
const MOST_IN_TERMINAL = 4096 + 65536;

/** What is in pipes and fifos. */
function checkPipes(findings: Findings, files: readonly file_entry[]): void {
  const numbers = {
    "pipes-data": new Set(files.map(({ pipe }) => pipe?.pipe_id)),
    "fifo-data": new Set(files.map(({ fifo }) => fifo?.pipe_id)),
  };
  const lengths = new Map<number, number>();
  for (const kind of ["pipes-data", "fifo-data"] as const) {
    const seen = new Set<number>();
    (findings.read(kind, undefined) ?? []).forEach((data, number) => {
      const { pipe_id, bytes, size } = data;
      const wrong = (field: string, why: string) =>
        findings.add(imageName(kind), number, field, why);
      if (seen.has(pipe_id)) wrong("pipe_id", `${pipe_id} is there twice`);
      seen.add(pipe_id);
      if ((size ?? 0) > LARGEST_PIPE) {
        wrong("size", `${size} is more than a pipe can have`);
      }
      // Both kinds may use a number; packets are for the one that has files.
      if (numbers[kind].has(pipe_id)) lengths.set(pipe_id, bytes);
    });
  }
  (findings.read("ckpt-pipes", undefined) ?? []).forEach((entry, number) => {
    const { pipe_id, packets, unconnected } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-pipes"), number, field, why);
    if (
      !numbers["pipes-data"].has(pipe_id) && !numbers["fifo-data"].has(pipe_id)
    ) wrong("pipe_id", `${pipe_id} is no pipe of files.img`);
    for (const packet of packets) {
      if (packet === 0 || packet > LONGEST_PACKET) {
        wrong("packets", `${packet} is not the length of a packet`);
      }
    }
    if ((entry.mode ?? 0) > PERMISSIONS) {
      wrong("mode", `0${entry.mode!.toString(8)} is more than permissions`);
    }
    for (const id of unconnected) {
      const { fifo } = files.find((file) => file.id === id) ?? {};
      if (fifo?.pipe_id !== pipe_id) {
        wrong("unconnected", `${id} is no descriptor of this fifo`);
      }
    }
    const sum = packets.reduce((sum, packet) => sum + packet, 0);
    const length = lengths.get(pipe_id) ?? 0;
    if (packets.length > 0 && sum !== length) {
      wrong("packets", `have ${sum} bytes, but the pipe ${length}`);
    }
  });
}

/** What CRIU's images do not tell of ghosts. */
function checkGhosts(findings: Findings): void {
  const seen = new Set<number>();
  (findings.read("ckpt-ghosts", undefined) ?? []).forEach((entry, number) => {
    const { ghost_id, allocated } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-ghosts"), number, field, why);
    if (!findings.set.has("ghost-file", ghost_id)) {
      wrong("ghost_id", `${imageName("ghost-file", ghost_id)} is missing`);
    }
    if (seen.has(ghost_id)) wrong("ghost_id", `${ghost_id} is there twice`);
    seen.add(ghost_id);
    for (const { start, end } of allocated) {
      if (end <= start || end > LARGEST_FILE) {
        wrong("allocated", `${start} to ${end} is no part of a file`);
      }
    }
  });
}

const GHOST_BIT = 0x80000000;

function checkRemaps(findings: Findings, table: FileTable): void {
  const remaps = findings.read("remap-fpath", undefined) ?? [];
  remaps.forEach(({ orig_id, remap_id, remap_type: type }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("remap-fpath"), number, field, why);
    if (!table.has(fd_types.REG, orig_id)) {
      wrong("orig_id", `${orig_id} is no regular file`);
    }
    const ghost = type === remap_type.GHOST ||
      (type === undefined && (remap_id & GHOST_BIT) !== 0);
    if (ghost) {
      const index = type === undefined ? remap_id & ~GHOST_BIT : remap_id;
      if (!findings.set.has("ghost-file", index)) {
        wrong("remap_id", `${imageName("ghost-file", index)} is missing`);
      }
    } else if (type === remap_type.PROCFS) {
      if (remap_id === 0) wrong("remap_id", "0 is no process id");
    } else if (!table.has(fd_types.REG, remap_id)) {
      wrong("remap_id", `${remap_id} is no regular file`);
    }
  });
}

/** Descriptor tables, and the directories of each task. */
export function checkDescriptors(
  findings: Findings,
  tasks: TreeTask[],
  table: FileTable,
): void {
  checkPidfds(findings, tasks);
  const epolls = epollTargets(findings);
  const open = new Set<number>();
  const seen = new Set<number>();
  // An epoll that is only in flight between sockets is in no table.
  const held = new Set<number>();
  const satisfied = new Set<number>();
  for (const { entry: { pid }, ids, dead } of tasks) {
    if (dead) continue;
    checkDirectories(findings, pid, table);
    if (ids === undefined || seen.has(ids.files_id)) continue;
    seen.add(ids.files_id);
    const descriptors = findings.read("fdinfo", ids.files_id) ?? [];
    const numbers = checkTable(findings, ids.files_id, descriptors, table);
    for (const { id, type } of descriptors) {
      open.add(id);
      if (type !== fd_types.EVENTPOLL) continue;
      held.add(id);
      if (epolls.get(id)?.every((fd) => numbers.has(fd))) satisfied.add(id);
    }
  }
  checkObjects(findings, open);
  checkSnapshots(findings);
  checkLocks(findings, tasks);
  for (const [id, fds] of epolls) {
    if (!held.has(id) || satisfied.has(id)) continue;
    findings.add(
      FILES,
      undefined,
      "epfd.tfd",
      `epoll ${id} watches ${fds.length}; no table with it has all of them`,
    );
  }
}

const HIGHEST_DESCRIPTOR = 0x3fffffff;

/** A process that was waited for has no pid any more. */
const GONE = -1;

function checkPidfds(findings: Findings, tasks: TreeTask[]): void {
  const pids = new Set(tasks.map(({ entry: { pid } }) => pid));
  const tids = new Set(
    tasks.flatMap(({ entry, dead }) => dead ? [entry.pid] : entry.threads),
  );
  (findings.read("files", undefined) ?? []).forEach(({ pidfd }, number) => {
    if (pidfd === undefined || pidfd.nspid === GONE) return;
    const known = (pidfd.flags & O.EXCL) === 0 ? pids : tids;
    if (known.has(pidfd.nspid)) return;
    const why = `${pidfd.nspid} is no process of pstree.img`;
    findings.add(FILES, number, "pidfd.nspid", why);
  });
}

/** With the bits of LOCK_MAND, which flocks of older kernels have. */
const HIGHEST_LOCK_TYPE = 0xff;

/** File locks, each by a descriptor of a process. */
function checkLocks(findings: Findings, tasks: TreeTask[]): void {
  const locks = findings.read("filelocks", undefined) ?? [];
  if (locks.length === 0) return;
  const tables = new Map(
    tasks.flatMap(({ entry: { pid }, ids, dead }) =>
      dead || ids === undefined ? [] : [[
        pid,
        new Set(
          (findings.read("fdinfo", ids.files_id) ?? []).map(({ fd }) => fd),
        ),
      ]]
    ),
  );
  locks.forEach(({ flag, type, pid, fd, start, len }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("filelocks"), number, field, why);
    if (![1, 2, 4, 8].includes(flag)) wrong("flag", `${flag} is no lock`);
    if (type > HIGHEST_LOCK_TYPE) wrong("type", `${type} is no type of lock`);
    const table = tables.get(pid);
    if (table === undefined) wrong("pid", `${pid} is no process that lives`);
    else if (!table.has(fd)) wrong("fd", `process ${pid} has no such one`);
    if (start < 0n || len < 0n || start + len > LARGEST_FILE) {
      wrong("start", `${start}, ${len} bytes, is no part of a file`);
    }
  });
}

/** What an image of ours tells of eventfds and epolls. */
function checkObjects(findings: Findings, open: ReadonlySet<number>): void {
  const files = new Map(
    (findings.read("files", undefined) ?? []).map((file) => [file.id, file]),
  );
  const seen = new Set<number>();
  (findings.read("ckpt-files", undefined) ?? []).forEach((entry, place) => {
    const { id, semaphore, watched, busy_polling } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-files"), place, field, why);
    const { efd, epfd, reg } = files.get(id) ?? {};
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (semaphore && efd === undefined) wrong("id", `${id} is no eventfd`);
    if (busy_polling !== undefined) {
      if (epfd === undefined) wrong("id", `${id} is no epoll`);
      if (busy_polling.length !== EPOLL_PARAMS_BYTES) {
        wrong("busy_polling", `has ${busy_polling.length} bytes`);
      }
    }
    checkRecorded(entry, reg !== undefined, wrong);
    watched.forEach(({ index, number, file }) => {
      if (epfd?.tfd[index] === undefined) {
        wrong("watched.index", `epoll ${id} has no entry ${index}`);
      }
      if (number > HIGHEST_DESCRIPTOR) {
        wrong("watched.number", `${number} is no descriptor`);
      }
      if (!open.has(file)) {
        wrong("watched.file", `no process has file ${file} open`);
      }
    });
  });
}

/** struct epoll_params of linux/eventpoll.h */
const EPOLL_PARAMS_BYTES = 8;
const UUID_BYTES = 16;

function checkSnapshots(findings: Findings): void {
  const seen = new Set<string>();
  (findings.read("ckpt-snapshots", undefined) ?? []).forEach((entry, place) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-snapshots"), place, field, why);
    for (const field of ["subvolume", "snapshot"] as const) {
      const path = entry[field];
      if (!path.startsWith("/")) wrong(field, `${path} is no absolute path`);
      if (seen.has(path)) wrong(field, `${path} is there twice`);
      seen.add(path);
    }
    if (entry.parent.length !== UUID_BYTES) {
      wrong("parent", `has ${entry.parent.length} bytes, not ${UUID_BYTES}`);
    }
  });
}

const SECOND_NS = 1_000_000_000;
const SHA256_BYTES = 32;

/** What a file is to be compared with. */
function checkRecorded(
  { id, modified_s, modified_ns = 0, digest, digest_bytes, device }:
    ckpt_file_entry,
  isNamed: boolean,
  wrong: (field: string, why: string) => void,
): void {
  if ((modified_s ?? digest ?? device) !== undefined && !isNamed) {
    wrong("id", `${id} is no file with a path`);
  }
  if (modified_ns >= SECOND_NS) {
    wrong("modified_ns", `${modified_ns} is more than a second`);
  }
  if (digest !== undefined && digest.length !== SHA256_BYTES) {
    wrong("digest", `has ${digest.length} bytes, not ${SHA256_BYTES}`);
  }
  if ((digest === undefined) !== (digest_bytes === undefined)) {
    wrong("digest_bytes", "is there without digest, or digest without it");
  }
}

/** What an image of ours tells of inotify and fanotify. */
function checkWatches(findings: Findings, files: readonly file_entry[]): void {
  const byId = new Map(files.map((file) => [file.id, file]));
  const seen = new Set<number>();
  (findings.read("ckpt-watches", undefined) ?? []).forEach((entry, place) => {
    const { id, targets, filesystems } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-watches"), place, field, why);
    const { ify, ffy } = byId.get(id) ?? {};
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (ify === undefined && ffy === undefined) {
      wrong("id", `${id} is no inotify or fanotify`);
    }
    for (const { index, file } of targets) {
      if ((ify?.wd ?? ffy?.mark)?.[index] === undefined) {
        wrong("targets.index", `${id} has no watch ${index}`);
      }
      if (byId.get(file)?.reg === undefined) {
        wrong("targets.file", `${file} is no file with a path`);
      }
    }
    const marks = (ffy?.mark.length ?? 0) + filesystems.length;
    for (const { index, path } of filesystems) {
      if (ffy === undefined || index >= marks) {
        wrong("filesystems.index", `${id} has no place ${index} for it`);
      }
      if (!path.startsWith("/")) {
        wrong("filesystems.path", `"${path}" is no absolute path`);
      }
    }
  });
}

/** What is in message queues and in maps of eBPF, and which are io_urings. */
function checkContents(findings: Findings, files: readonly file_entry[]): void {
  const byId = new Map(files.map((file) => [file.id, file]));
  const seen = new Set<number>();
  (findings.read("ckpt-queues", undefined) ?? []).forEach((entry, place) => {
    for (const id of entry.files) {
      const wrong = (why: string) =>
        findings.add(imageName("ckpt-queues"), place, "files", why);
      if (byId.get(id)?.reg === undefined) wrong(`${id} is no such file`);
      if (seen.has(id)) wrong(`${id} is there twice`);
      seen.add(id);
    }
  });
  (findings.read("ckpt-tuns", undefined) ?? []).forEach((entry, place) => {
    const { id, name, link } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-tuns"), place, field, why);
    if (byId.get(id)?.reg === undefined) wrong("id", `${id} is no device`);
    if (!DEVICE_NAME.test(name)) {
      wrong("name", `"${name}" is no name of a network device`);
    }
    for (const { name } of link?.sysctls ?? []) {
      if (name.startsWith("net/") && !name.includes("..")) continue;
      wrong("link.sysctls", `"${name}" is no value of a network device`);
    }
    const messages = [...link?.addresses ?? [], ...link?.routes ?? []];
    if (messages.some(({ length }) => length < SHORTEST_MESSAGE)) {
      wrong("link", "has an address or a route that is none");
    }
  });
  (findings.read("ckpt-rings", undefined) ?? []).forEach(({ id }, place) => {
    const wrong = (why: string) =>
      findings.add(imageName("ckpt-rings"), place, "id", why);
    if (byId.get(id)?.reg === undefined) wrong(`${id} is no such file`);
    if (seen.has(id)) wrong(`${id} is there twice`);
    seen.add(id);
  });
  const maps = new Map(files.map(({ bpf }) => [bpf?.map_id, bpf]));
  (findings.read("bpfmap-data", undefined) ?? []).forEach((data, place) => {
    const { map_id, keys_bytes, values_bytes, count } = data;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("bpfmap-data"), place, field, why);
    const map = maps.get(map_id);
    if (map === undefined) return wrong("map_id", `${map_id} is no map`);
    if (count > map.max_entries) wrong("count", `${count} are too many`);
    if (keys_bytes !== count * map.key_size) {
      wrong("keys_bytes", `${keys_bytes} are not those of ${count} keys`);
    }
    if (values_bytes !== count * map.value_size) {
      wrong("values_bytes", `${values_bytes} are not those of ${count} values`);
    }
  });
}

/** The numbers by which what epolls watch is found in a table. */
function epollTargets(findings: Findings): Map<number, number[]> {
  const files = findings.read("files", undefined) ?? [];
  const extensions = new Map(
    (findings.read("ckpt-files", undefined) ?? []).map(({ id, watched }) => [
      id,
      new Set(watched.map(({ index }) => index)),
    ]),
  );
  return new Map(
    files.filter((file) => file.epfd !== undefined).map((file) => [
      file.id,
      file.epfd!.tfd.filter((_, index) => !extensions.get(file.id)?.has(index))
        .map((target) => target.tfd),
    ]),
  );
}

/** @returns its numbers */
function checkTable(
  findings: Findings,
  filesId: number,
  descriptors: fdinfo_entry[],
  table: FileTable,
): ReadonlySet<number> {
  const seen = new Set<number>();
  descriptors.forEach(({ fd, id, type, flags }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("fdinfo", filesId), number, field, why);
    if (seen.size === seen.add(fd).size) wrong("fd", `${fd} is there twice`);
    if (fd > HIGHEST_DESCRIPTOR) wrong("fd", `${fd} is no descriptor`);
    if (flags > 1) wrong("flags", `${flags} is more than FD_CLOEXEC`);
    if (table.known && !table.has(type, id)) {
      wrong("id", `no file ${id} of type ${type} is in files.img`);
    }
  });
  return seen;
}

function checkDirectories(
  findings: Findings,
  pid: number,
  table: FileTable,
): void {
  const fs = findings.require("fs", pid);
  if (fs === undefined) return;
  const file = imageName("fs", pid);
  for (const field of ["cwd_id", "root_id"] as const) {
    if (!table.known || table.has(fd_types.REG, fs[field])) continue;
    findings.add(file, 0, field, `${fs[field]} is no directory of files.img`);
  }
  if ((fs.umask ?? 0) > 0o777) {
    findings.add(file, 0, "umask", `0${fs.umask!.toString(8)} is no umask`);
  }
}
