/**
 * What the kernel tells of the descriptors of a process, asked for all of them
 * by one call of native code (c/lib/descriptors.c): the process may stand still
 * for it. Of an earlier look is taken what has not changed since.
 */
import { ENOBUFS } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import {
  addressOf,
  BLOCK,
  close,
  type FileStatus,
  O,
  open,
  readLink,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { explainUntold } from "../ghost/untold.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { listDescriptors, readFdInfo } from "../proc/read.ts";
import {
  distrustOpenFiles,
  type OpenFiles,
  readOpenFiles,
} from "./open_files.ts";

export interface DescriptorFacts {
  readonly fd: number;
  /** What /proc/PID/fd/N shows. */
  readonly link: string;
  readonly status: FileStatus;
  readonly info: FdInfo;
  /** Of an epoll: struct epoll_params, unless it is zero. */
  readonly busyPolling: Uint8Array<ArrayBuffer> | undefined;
}

/** What is known of a file below /proc whose task is gone. */
export const NO_STATUS: FileStatus = {
  dev: 0n,
  ino: 0n,
  mode: 0,
  nlink: 0n,
  uid: 0,
  gid: 0,
  rdev: 0n,
  size: 0n,
  allocated: 0n,
};

/** struct seen_descriptor of c/lib/descriptors.c. */
const RECORD = 144;
const AT = {
  error: 4,
  dev: 8,
  ino: 16,
  nlink: 24,
  rdev: 32,
  size: 40,
  blocks: 48,
  mode: 56,
  uid: 60,
  gid: 64,
  flags: 68,
  pos: 72,
  inode: 80,
  mount: 88,
  known: 92,
  busyPolling: 96,
  linkLength: 104,
  detailsLength: 108,
  text: 112,
  same: 136,
} as const;
const EPOLL_PARAMS_BYTES = 8;
const KNOWN = { inode: 1, status: 2, owner: 4, hasOwner: 8 } as const;
/** struct look. */
const LOOK = 88;
/** Bytes of text that descriptors have on average, at most. */
const ROOM = 512;
/** Of an epoll that watches a million files it is 100 MB. */
const MOST_ROOM = 1 << 28;

/** TEXT_OF_ONE of c/lib/descriptors.c. */
const ANSWER_ROOM = 65536;

const LOCK_PREFIX = "lock:\t";

/** The answers about all descriptors of a process at one moment. */
export class FactTable {
  /** As C has it: {@link RECORD} bytes for each descriptor. */
  readonly records: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #text: Uint8Array<ArrayBuffer>;
  /** Those that have more text than there was room for, by their indices. */
  readonly #long = new Map<number, FactTable>();

  private constructor(readonly fds: readonly number[], room: number) {
    const count = fds.length;
    this.records = new Uint8Array(count * RECORD);
    this.#view = new DataView(this.records.buffer);
    this.#text = new Uint8Array(count * room);
  }

  /**
   * Asks about all descriptors, where that is faster by reading them at once.
   *
   * @param pid of a process, or of a thread of it; @param pidfd of it
   * @param earlier another look at the same process
   * @throws CkptError or SyscallError when one is closed meanwhile
   */
  static askAll(
    pid: number,
    pidfd: number,
    earlier: FactTable | undefined,
    standsStill: boolean,
  ): FactTable {
    const files = readOpenFiles(pid, standsStill);
    const fds = files?.fds ?? listDescriptors(pid);
    return FactTable.ask(pid, pidfd, fds, earlier, files);
  }

  /**
   * Asks about descriptors, in ascending order.
   *
   * @param files where they were read
   */
  static ask(
    pid: number,
    pidfd: number,
    fds: readonly number[],
    earlier?: FactTable,
    files?: OpenFiles,
  ): FactTable {
    const directories: number[] = [];
    try {
      for (const name of ["fd", "fdinfo"]) {
        directories.push(open(`/proc/${pid}/${name}`, O.PATH | O.DIRECTORY));
      }
      const asking = [...directories, pidfd];
      const table = FactTable.#ask(asking, fds, ROOM, earlier, files);
      fds.forEach((fd, i) => table.#complete(i, pid, fd, asking));
      return table;
    } catch (error) {
      // When it is gone, that is told in words.
      if (error instanceof SyscallError && fds.length > 0) explain(pid, fds[0]);
      throw error;
    } finally {
      for (const directory of directories) close(directory);
    }
  }

  static #ask(
    asking: readonly number[],
    fds: readonly number[],
    room: number,
    earlier?: FactTable,
    files?: OpenFiles,
  ): FactTable {
    const table = new FactTable(fds, room);
    fds.forEach((fd, i) => table.#view.setInt32(i * RECORD, fd, true));
    const look = new Uint8Array(LOOK);
    const view = new DataView(look.buffer);
    asking.forEach((fd, i) => view.setInt32(4 * i, fd, true));
    const pointer = (at: number, bytes: Uint8Array<ArrayBuffer>) => {
      if (bytes.length > 0) view.setBigUint64(at, addressOf(bytes), true);
    };
    pointer(16, table.records);
    pointer(24, table.#text);
    view.setBigUint64(32, BigInt(room), true);
    if (earlier !== undefined) {
      pointer(40, earlier.records);
      view.setBigUint64(48, BigInt(earlier.fds.length), true);
      pointer(56, earlier.#text);
    }
    if (files !== undefined) {
      pointer(64, files.records);
      pointer(72, new Uint8Array(files.places.buffer));
      view.setBigUint64(80, BigInt(files.standsStill), true);
    }
    const count = BigInt(fds.length);
    const native = library("descriptors");
    native.ckpt_look_at_descriptors(look, count);
    if (files === undefined || files.standsStill) return table;
    const answer = new Uint8Array(ANSWER_ROOM);
    if (native.ckpt_compare_descriptors(look, count, answer) === 0n) {
      return table;
    }
    distrustOpenFiles();
    return FactTable.#ask(asking, fds, room, earlier);
  }

  /** Asks again with more room, or says what went wrong. */
  #complete(
    i: number,
    pid: number,
    fd: number,
    asking: readonly number[],
  ): void {
    let error = this.#number(i, AT.error);
    for (let room = 64 * ROOM; error === -ENOBUFS; room *= 8) {
      const table = FactTable.#ask(asking, [fd], Math.min(room, MOST_ROOM));
      error = table.#number(0, AT.error);
      if (error === 0) {
        this.records.set(table.records, i * RECORD);
        // The text is not where a later look would seek it.
        this.#view.setInt32(i * RECORD + AT.error, -ENOBUFS, true);
        this.#long.set(i, table);
      } else if (room >= MOST_ROOM) break;
    }
    if (error === 0) return;
    explain(pid, fd);
    // It is well by now, so it has been another one.
    throw new SyscallError("openat", -error);
  }

  #number(i: number, at: number): number {
    return this.#view.getInt32(i * RECORD + at, true);
  }

  /** The index in the earlier table of one that is as it was; undefined: none. */
  same(i: number): number | undefined {
    const index = this.#number(i, AT.same);
    return index < 0 ? undefined : index;
  }

  /** Whether somebody gets signals about the file; undefined: not told. */
  hasOwner(i: number): boolean | undefined {
    const known = this.#number(i, AT.known);
    return (known & KNOWN.owner) === 0
      ? undefined
      : (known & KNOWN.hasOwner) !== 0;
  }

  get(i: number): DescriptorFacts {
    const long = this.#long.get(i);
    if (long !== undefined) return long.get(0);
    const view = this.#view;
    const at = i * RECORD;
    const known = view.getUint32(at + AT.known, true);
    const text = Number(view.getBigUint64(at + AT.text, true));
    const details = text + view.getUint32(at + AT.linkLength, true);
    const end = details + view.getUint32(at + AT.detailsLength, true);
    const busyPolling = at + AT.busyPolling;
    return {
      fd: view.getInt32(at, true),
      link: decodeText(this.#text.subarray(text, details)),
      status: (known & KNOWN.status) === 0 ? NO_STATUS : {
        dev: view.getBigUint64(at + AT.dev, true),
        ino: view.getBigUint64(at + AT.ino, true),
        nlink: view.getBigUint64(at + AT.nlink, true),
        mode: view.getUint32(at + AT.mode, true),
        uid: view.getUint32(at + AT.uid, true),
        gid: view.getUint32(at + AT.gid, true),
        rdev: view.getBigUint64(at + AT.rdev, true),
        size: view.getBigUint64(at + AT.size, true),
        allocated: view.getBigUint64(at + AT.blocks, true) * BLOCK,
      },
      info: {
        pos: view.getBigInt64(at + AT.pos, true),
        flags: view.getUint32(at + AT.flags, true),
        mntId: view.getInt32(at + AT.mount, true),
        ino: (known & KNOWN.inode) === 0
          ? undefined
          : view.getBigUint64(at + AT.inode, true),
        ...linesOf(this.#text.subarray(details, end)),
      },
      busyPolling: view.getBigUint64(busyPolling, true) === 0n
        ? undefined
        : this.records.slice(busyPolling, busyPolling + EPOLL_PARAMS_BYTES),
    };
  }
}

const NO_LINES: readonly string[] = [];

/** The further lines of fdinfo. */
function linesOf(text: Uint8Array): Pick<FdInfo, "locks" | "extra"> {
  if (text.length === 0) return { locks: NO_LINES, extra: NO_LINES };
  const lines = decodeText(text).split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (!lines.some((line) => line.startsWith(LOCK_PREFIX))) {
    return { locks: NO_LINES, extra: lines };
  }
  return {
    locks: lines.filter((line) => line.startsWith(LOCK_PREFIX))
      .map((line) => line.slice(LOCK_PREFIX.length)),
    extra: lines.filter((line) => !line.startsWith(LOCK_PREFIX)),
  };
}

/** Asks one by one, each of which tells in words why there is no answer. */
function explain(pid: number, fd: number): void {
  readFdInfo(pid, fd);
  const path = `/proc/${pid}/fd/${fd}`;
  let link = "";
  try {
    link = ` (${decodeText(readLink(path))})`;
    stat(path);
  } catch (error) {
    throw explainUntold(error, `descriptor ${fd}${link} of task ${pid}`);
  }
}
