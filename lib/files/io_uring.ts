/**
 * Instances of io_uring (io_uring(7)) that nothing is under way in. The kernel
 * is looked at for what it tells nobody (kernel_rings.ts); a restore makes
 * another ring, has it count to where the old one was, maps it at the same
 * places with the same content, and registers the same files and buffers.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { library } from "../ffi/library.ts";
import { getDescriptor, openPidfd } from "../ffi/pidfd.ts";
import { close, SyscallError } from "../ffi/syscall.ts";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import type { Vma } from "../mm/vma.ts";
import { KINDS } from "./kinds.ts";
import { KernelRings, type Ring } from "./kernel_rings.ts";

/** IORING_SETUP_*, linux/io_uring.h */
const SETUP = {
  IOPOLL: 0x1,
  CQSIZE: 0x8,
  CLAMP: 0x10,
  R_DISABLED: 0x40,
  SUBMIT_ALL: 0x80,
  COOP_TASKRUN: 0x100,
  TASKRUN_FLAG: 0x200,
  SQE128: 0x400,
  CQE32: 0x800,
  NO_SQARRAY: 0x10000,
} as const;
const SUPPORTED = Object.values(SETUP).reduce<number>((all, f) => all | f, 0);
/** Why the others are not. */
const UNSUPPORTED: Readonly<Record<number, string>> = {
  0x2: "a thread of the kernel takes its requests (IORING_SETUP_SQPOLL)",
  0x20: "it shares the workers of another one (IORING_SETUP_ATTACH_WQ)",
  0x1000: "only one thread may use it (IORING_SETUP_SINGLE_ISSUER)",
  0x4000: "its rings are memory of the program (IORING_SETUP_NO_MMAP)",
};

const NO_FILE = -1;
/** The powers of two that the kernel takes (IORING_MAX_ENTRIES). */
const MOST_REQUESTS = 32768;
const MOST_RESULTS = 65536;

/** A process, as far as it matters here. */
interface Holder {
  readonly pid: number;
  readonly tid?: number;
  readonly descriptors: readonly {
    readonly fd: number;
    readonly link: string;
    readonly status: { readonly ino: bigint };
  }[];
}

interface Mapper extends Holder {
  readonly vmas: { readonly vmas: readonly Vma[] };
}

export function isRingLink(link: string): boolean {
  return KINDS.io_uring.link.test(link);
}

/**
 * Opened once: the first look is at a program that runs, and reads the types of
 * the kernel, which takes a while.
 */
let opened: KernelRings | string | undefined;

/**
 * Why the rings of a tree cannot be saved, but for what is under way in them,
 * which is another at any moment.
 */
export function ringReasons(processes: readonly Mapper[]): Reason[] {
  const reasons: Reason[] = [];
  const users = new Map<bigint, number>();
  for (const { pid, vmas: { vmas }, descriptors } of processes) {
    const own = new Set(
      descriptors.filter(({ link }) => isRingLink(link))
        .map(({ status }) => status.ino),
    );
    for (const ino of own) users.set(ino, (users.get(ino) ?? 0) + 1);
    for (const { entry, inode } of vmas) {
      if (!isRingArea(entry) || own.has(inode)) continue;
      reasons.push({
        object: `mapping ${entry.start.toString(16)} of task ${pid}`,
        why: "it shows an io_uring that the process has no descriptor of",
      });
    }
  }
  for (const { ino, object, read } of ringsAmong(processes)) {
    const ring = read();
    const why = typeof ring === "string"
      ? ring
      : ring.buffers.length > 0 && users.get(ino)! > 1
      ? "buffers are registered with it, and several processes have it"
      : undefined;
    if (why !== undefined) {
      reasons.push({
        object,
        why: `an io_uring is not supported: ${why}`,
        remedy: "let the program close it; many can be told to do without",
      });
    }
  }
  return reasons;
}

/**
 * The rings of a tree that stands still, by the inodes of their files.
 *
 * @throws CkptError naming one that cannot be saved
 */
export function readRings(
  processes: readonly Holder[],
): ReadonlyMap<bigint, Omit<ckpt_ring_entry, "id">> {
  const found = new Map<bigint, Omit<ckpt_ring_entry, "id">>();
  for (const { ino, pid, object, read } of ringsAmong(processes)) {
    const ring = read();
    if (typeof ring === "string") {
      throw new CkptError(EXIT.refused, "looking at an io_uring", [{
        object,
        why: ring,
      }]);
    }
    if (ring.isBusy) {
      throw new CkptError(EXIT.failed, "looking at an io_uring", [{
        object,
        why: "requests are under way in it, which would be lost",
        remedy: "dump again when they have ended",
      }]);
    }
    const { flags, requests, results, taken, given, buffers, eventfd } = ring;
    found.set(ino, {
      pid,
      flags,
      requests,
      results,
      taken,
      given,
      buffers: buffers.map((buffer) => ({ ...buffer })),
      files: ring.fileNumbers,
      eventfd: ring.eventfdNumber,
      eventfd_async: eventfd?.async || undefined,
    });
  }
  return found;
}

/** With the numbers by which its process has what is registered. */
interface NumberedRing extends Ring {
  readonly fileNumbers: number[];
  readonly eventfdNumber: number | undefined;
}

/** Each once, with the process that comes first. */
function* ringsAmong(processes: readonly Holder[]): Generator<{
  ino: bigint;
  pid: number;
  object: string;
  read: () => NumberedRing | string;
}> {
  const seen = new Set<bigint>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, status: { ino } } of descriptors) {
      if (!isRingLink(link) || seen.has(ino)) continue;
      seen.add(ino);
      const numbers = descriptors.map(({ fd }) => fd);
      const object = `descriptor ${fd} (${link}) of task ${pid}`;
      yield { ino, pid, object, read: () => readRing(tid, fd, numbers) };
    }
  }
}

/** @returns why it cannot be saved, where that is so */
function readRing(
  pid: number,
  fd: number,
  numbers: readonly number[],
): NumberedRing | string {
  opened ??= KernelRings.open();
  if (typeof opened === "string") return opened;
  const kernel = opened;
  const process = openPidfd(pid);
  try {
    const ring = withOwn(process, fd, (own) => kernel.ring(own))!;
    const known = ring.files.length > 0 || ring.eventfd !== undefined
      ? numbers.map((number) => ({
        number,
        file: withOwn(process, number, (own) => kernel.file(own)),
      }))
      : [];
    const fileNumbers = ring.files.map((file) =>
      file === 0n
        ? NO_FILE
        : known.find((one) => one.file === file)?.number ?? undefined
    );
    const { context } = ring.eventfd ?? {};
    const eventfdNumber = context === undefined
      ? undefined
      : known.find(({ file }) =>
        file !== undefined && kernel.eventfdContext(file) === context
      )?.number;
    const why = ringProblem(ring) ??
      (fileNumbers.includes(undefined)
        ? "a file is registered with it that the process has not open"
        : context !== undefined && eventfdNumber === undefined
        ? "it tells of results to an eventfd that the process has not open"
        : undefined);
    return why ?? {
      ...ring,
      fileNumbers: fileNumbers.map((number) => number!),
      eventfdNumber,
    };
  } catch (error) {
    if (!(error instanceof NoSuchMemory)) throw error;
    return `looking it up in the kernel failed: ${error.message}`;
  } finally {
    close(process);
  }
}

function withOwn<T>(
  process: number,
  fd: number,
  look: (own: number) => T,
): T | undefined {
  let own: number;
  try {
    own = getDescriptor(process, fd);
  } catch (error) {
    // Closed meanwhile, while the program runs.
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  try {
    return look(own);
  } finally {
    close(own);
  }
}

/** Why it cannot be made again; undefined: it can. */
export function ringProblem(
  { flags, unknown = [] }: Pick<Ring, "flags"> & { unknown?: Ring["unknown"] },
): string | undefined {
  const more = flags & ~SUPPORTED;
  if (more !== 0) {
    const [, why] = Object.entries(UNSUPPORTED).find(([flag]) =>
      (more & Number(flag)) !== 0
    ) ?? [];
    return why ?? `its flags 0x${more.toString(16)} are not known`;
  }
  return unknown.length === 0
    ? undefined
    : `it has ${unknown.join(", ")}, which cannot be put back`;
}

/** What the kernel would not take of an entry; undefined: it takes it. */
export function ringImageProblem(entry: ckpt_ring_entry): string | undefined {
  const { requests, results, flags, taken, given } = entry;
  const isSize = (value: number, most: number) =>
    value > 0 && value <= most && (value & value - 1) === 0;
  if (!isSize(requests, MOST_REQUESTS) || !isSize(results, MOST_RESULTS)) {
    return `${requests} requests and ${results} results are no sizes of a ring`;
  }
  if ((flags & SETUP.R_DISABLED) !== 0 && (taken | given) !== 0) {
    return "it is disabled, but has taken requests";
  }
  return ringProblem(entry);
}

/**
 * Makes a ring that has counted to where the one of the image was.
 *
 * @returns a descriptor of ckpt's
 * @throws SyscallError
 */
export function makeRing(entry: ckpt_ring_entry): number {
  const { flags, requests, results, taken, given } = entry;
  const made = Number(
    library("ring").ckpt_make_ring(flags, requests, results, taken, given),
  );
  if (made < 0) throw new SyscallError("io_uring_setup", -made);
  return made;
}
