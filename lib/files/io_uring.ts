/**
 * Instances of io_uring (io_uring(7)) that nothing is under way in. The kernel
 * is looked at for what it tells nobody (kernel_rings.ts); a restore makes
 * another ring, has it count to where the old one was, maps it at the same
 * places with the same content, and registers the same files and buffers.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { library } from "../ffi/library.ts";
import { pause } from "../ffi/pause.ts";
import { getDescriptor, openPidfd } from "../ffi/pidfd.ts";
import { close, syscallBuffer1, SyscallError } from "../ffi/syscall.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type {
  ckpt_poller_entry,
  ckpt_ring_entry,
  ckpt_ring_memory_entry,
} from "../image/schema.gen.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import type { Vma } from "../mm/vma.ts";
import { listThreads } from "../proc/read.ts";
import { waitersInVfork } from "../task/vfork.ts";
import { KINDS } from "./kinds.ts";
import { GONE, KernelRings, type Ring } from "./kernel_rings.ts";
import { isBound, SETUP } from "./register_with_ring.ts";
import { findFrames } from "./ring_memory.ts";

const SUPPORTED = Object.values(SETUP).reduce<number>((all, f) => all | f, 0);

const NO_FILE = -1;
/** The powers of two that the kernel takes (IORING_MAX_ENTRIES). */
const MOST_REQUESTS = 32768;
const MOST_RESULTS = 65536;
/** Bytes of either ring, of the largest entries. */
const MOST_MEMORY = 8 << 20;

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
  for (const { pid, vmas: { vmas }, descriptors } of processes) {
    const own = new Set(
      descriptors.filter(({ link }) => isRingLink(link))
        .map(({ status }) => status.ino),
    );
    for (const { entry, inode } of vmas) {
      if (!isRingArea(entry) || own.has(inode)) continue;
      reasons.push({
        object: `mapping ${entry.start.toString(16)} of task ${pid}`,
        why: "it shows an io_uring that the process has no descriptor of",
      });
    }
  }
  for (const places of ringsAmong(processes).values()) {
    const ring = readRing(places);
    const why = typeof ring === "string"
      ? ring
      : ring.buffers.length > 0 && ring.thread === undefined &&
          places.length > 1
      ? "buffers are registered with it, and several processes have it"
      : undefined;
    if (why !== undefined) {
      reasons.push({
        object: nameOf(places),
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
  for (const [ino, places] of ringsAmong(processes)) {
    const ring = readQuietRing(places);
    const object = nameOf(places);
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
    const { pid, flags, requests, results, taken, given, eventfd } = ring;
    const { thread, memory, poller, registeredBy } = ring;
    found.set(ino, {
      pid,
      flags,
      requests,
      results,
      taken,
      given,
      buffers: ring.buffers.map((buffer) => ({ ...buffer })),
      files: ring.fileNumbers,
      eventfd: ring.eventfdNumber,
      eventfd_async: eventfd?.async || undefined,
      thread,
      memory,
      poller,
      registered_by: registeredBy.map((one) => ({ ...one })),
    });
  }
  return found;
}

/** A ring as its process has it. */
interface FoundRing extends Omit<Ring, "memory" | "poller"> {
  /** Of those that have it, the one that it belongs to. */
  readonly pid: number;
  /** The numbers by which it has what is registered. */
  readonly fileNumbers: number[];
  readonly eventfdNumber: number | undefined;
  readonly memory: ckpt_ring_memory_entry | undefined;
  readonly poller: ckpt_poller_entry | undefined;
}

/** A process that has the ring, and its number there. */
interface Place {
  readonly holder: Holder;
  readonly fd: number;
  readonly link: string;
}

/** By the inodes of their files, each process once. */
function ringsAmong(
  processes: readonly Holder[],
): ReadonlyMap<bigint, readonly Place[]> {
  const found = new Map<bigint, Place[]>();
  for (const holder of processes) {
    for (const { fd, link, status: { ino } } of holder.descriptors) {
      if (!isRingLink(link)) continue;
      const places = found.get(ino) ?? [];
      if (places.at(-1)?.holder !== holder) places.push({ holder, fd, link });
      found.set(ino, places);
    }
  }
  return found;
}

function nameOf([{ fd, link, holder: { pid } }]: readonly Place[]): string {
  return `descriptor ${fd} (${link}) of task ${pid}`;
}

/** How often, and after how many milliseconds, a poller is looked at. */
const LOOKS = 1000;
const LOOK_MS = 1;

/**
 * A thread of the kernel goes on while the program stands still: until it has
 * taken and done what was there.
 */
function readQuietRing(places: readonly Place[]): FoundRing | string {
  let ring = readRing(places);
  for (let look = 0; look < LOOKS; look++) {
    if (typeof ring === "string" || ring.poller === undefined) return ring;
    const { taken, given, isBusy } = ring;
    pause(LOOK_MS);
    ring = readRing(places);
    if (typeof ring === "string") return ring;
    const isQuiet = !isBusy && !ring.isBusy;
    if (isQuiet && ring.taken === taken && ring.given === given) return ring;
  }
  return ring;
}

/** @returns why it cannot be saved, where that is so */
function readRing(places: readonly Place[]): FoundRing | string {
  opened ??= KernelRings.open();
  if (typeof opened === "string") return opened;
  const kernel = opened;
  const [{ holder: { pid, tid = pid }, fd }] = places;
  const process = openPidfd(tid);
  try {
    const ring = withOwn(process, fd, (own) => kernel.ring(own))!;
    const problem = ringProblem(ring);
    if (problem !== undefined) return problem;
    const owner = ownerOf(ring, places);
    if (typeof owner === "string") return owner;
    const { poller } = ring;
    return {
      ...ring,
      ...owner,
      ...numbersOf(kernel, ring, owner.holder),
      poller: poller === undefined || poller === GONE ? undefined : {
        number: poller.id,
        // Back to what the kernel rounded up (msecs_to_jiffies).
        idle: Math.floor(poller.idle * tickMs()),
        cpu: poller.cpu,
        credentials: poller.credentials,
      },
    };
  } catch (error) {
    if (error instanceof NotOpen) return error.message;
    if (!(error instanceof NoSuchMemory)) throw error;
    return `looking it up in the kernel failed: ${error.message}`;
  } finally {
    close(process);
  }
}

/** How long the kernel's clock goes from tick to tick. */
function tickMs(): number {
  const CLOCK_MONOTONIC_COARSE = 6n;
  const resolution = new BigUint64Array(2);
  syscallBuffer1(
    "clock_getres",
    CLOCK_MONOTONIC_COARSE,
    new Uint8Array(resolution.buffer),
  );
  return Number(resolution[1]) / 1e6;
}

/** The process whose thread or memory it needs, or else the first. */
function ownerOf(
  { thread, poller, memory, registeredBy }: Ring,
  places: readonly Place[],
): Pick<FoundRing, "pid" | "memory"> & { holder: Holder } | string {
  if (thread === GONE) {
    return "the thread that alone may use it (IORING_SETUP_SINGLE_ISSUER) " +
      "has ended, so that nobody can";
  }
  if (poller === GONE) {
    return "the thread of the kernel that took its requests " +
      "(IORING_SETUP_SQPOLL) has ended, so that nobody does";
  }
  if (poller?.credentials === GONE) {
    return "a thread of the kernel does its requests (IORING_SETUP_SQPOLL) " +
      "with credentials that no thread of the program has any more";
  }
  const busy = thread !== undefined &&
    places.some(({ holder }) => waitersInVfork(holder.pid).includes(thread));
  if (busy) {
    return "the thread that alone may use it (IORING_SETUP_SINGLE_ISSUER) " +
      "waits in vfork(2), where a restored one can do nothing for it";
  }
  const threads = [
    ...thread === undefined ? [] : [thread],
    ...poller === undefined ? [] : [poller.credentials],
    ...registeredBy.map(({ thread }) => thread),
  ];
  const able = threads.length === 0 ? places : places.filter(({ holder }) => {
    const own = listThreads(holder.pid);
    return threads.every((thread) => own.includes(thread));
  });
  if (able.length === 0) {
    return "threads use it whose process has no descriptor of it, or several";
  }
  if (memory === undefined) {
    const [{ holder }] = able;
    return { holder, pid: holder.pid, memory: undefined };
  }
  for (const { holder } of able) {
    const { pid, tid = pid } = holder;
    const counters = findFrames(tid, memory.counters);
    const entries = findFrames(tid, memory.entries);
    if (counters === undefined || entries === undefined) continue;
    return {
      holder,
      pid,
      memory: {
        counters,
        counters_length: memory.counters.length * PAGE_SIZE,
        entries,
        entries_length: memory.entries.length * PAGE_SIZE,
      },
    };
  }
  return "its memory (IORING_SETUP_NO_MMAP) is not mapped by the program " +
    "any more";
}

/** A file that is registered is no descriptor of the process. */
class NotOpen extends Error {}

/** @throws NotOpen */
function numbersOf(
  kernel: KernelRings,
  ring: Ring,
  { pid, tid = pid, descriptors }: Holder,
): Pick<FoundRing, "fileNumbers" | "eventfdNumber"> {
  const { files, eventfd } = ring;
  if (files.length === 0 && eventfd === undefined) {
    return { fileNumbers: [], eventfdNumber: undefined };
  }
  const process = openPidfd(tid);
  try {
    const known = descriptors.map(({ fd: number }) => ({
      number,
      file: withOwn(process, number, (own) => kernel.file(own)),
    }));
    const fileNumbers = files.map((file) => {
      if (file === 0n) return NO_FILE;
      const found = known.find((one) => one.file === file);
      if (found !== undefined) return found.number;
      throw new NotOpen(
        "a file is registered with it that the process has not open",
      );
    });
    if (eventfd === undefined) return { fileNumbers, eventfdNumber: undefined };
    const told = known.find(({ file }) =>
      file !== undefined && kernel.eventfdContext(file) === eventfd.context
    );
    if (told !== undefined) return { fileNumbers, eventfdNumber: told.number };
    throw new NotOpen(
      "it tells of results to an eventfd that the process has not open",
    );
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
  if (more !== 0) return `its flags 0x${more.toString(16)} are not known`;
  return unknown.length === 0
    ? undefined
    : `it has ${unknown.join(", ")}, which cannot be put back`;
}

/** What the kernel would not take of an entry; undefined: it takes it. */
export function ringImageProblem(entry: ckpt_ring_entry): string | undefined {
  const { requests, results, flags, taken, given, memory } = entry;
  const isSize = (value: number, most: number) =>
    value > 0 && value <= most && (value & value - 1) === 0;
  if (!isSize(requests, MOST_REQUESTS) || !isSize(results, MOST_RESULTS)) {
    return `${requests} requests and ${results} results are no sizes of a ring`;
  }
  if ((flags & SETUP.R_DISABLED) !== 0 && (taken | given) !== 0) {
    return "it is disabled, but has taken requests";
  }
  if (isBound(entry) && entry.thread === undefined) {
    return "no thread may use it";
  }
  const has = (flag: number, part: unknown) =>
    (flags & flag) !== 0 === (part !== undefined);
  if (!has(SETUP.SQPOLL, entry.poller) || !has(SETUP.NO_MMAP, memory)) {
    return "its thread or its memory is not that of such a ring";
  }
  const lengths = memory === undefined
    ? []
    : [memory.counters_length, memory.entries_length];
  if (lengths.some((length) => length === 0 || length > MOST_MEMORY)) {
    return "its memory is not as large as that of a ring can be";
  }
  return ringProblem(entry);
}

/**
 * Makes a ring that has counted to where the one of the image was; one that is
 * bound to a thread is disabled, and that thread does the rest.
 *
 * @returns a descriptor of ckpt's
 * @throws SyscallError
 */
export function makeRing(entry: ckpt_ring_entry): number {
  const { flags, requests, results, taken, given } = entry;
  const { ckpt_make_ring } = library("ring");
  const made = Number(
    isBound(entry)
      ? ckpt_make_ring(flags | SETUP.R_DISABLED, requests, results, 0, 0)
      : ckpt_make_ring(flags, requests, results, taken, given),
  );
  if (made < 0) throw new SyscallError("io_uring_setup", -made);
  return made;
}
