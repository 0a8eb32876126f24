/**
 * The program by which an agent gets what the threads of its process share, but
 * for memory and descriptors. Order matters.
 */
import { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  isBound,
  isMadeByProcess,
  registerAll,
  wakePoller,
} from "../files/register_with_ring.ts";
import { restoreDirectories } from "../files/restore_descriptors.ts";
import { pagesName } from "../image/kinds.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { restoreRings } from "../mm/aio.ts";
import { realAreas } from "../mm/areas.ts";
import type { AddressRange } from "../mm/hole.ts";
import { sealMemory } from "../mm/rebuild.ts";
import { isRingArea, mapPacketRings, mapRings } from "../mm/ring_areas.ts";
import { storedPages } from "../mm/stored_pages.ts";
import { restoreFpuPermission } from "../task/fpu.ts";
import { restoreProcess } from "../task/process_attributes.ts";
import {
  restoreSemaphoreUndos,
  type SemaphoreValues,
} from "../task/semaphore_undo.ts";
import { restoreSignalActions } from "../task/signal_actions.ts";
import { isEntered } from "../ns/inside.ts";
import { readRings } from "./aio_rings.ts";
import { areaExtensions, mappableFiles } from "./memory_program.ts";
import type { Host } from "./plan.ts";
import type { ServiceNumbers } from "./services.ts";
import { regularFile, type TaskImages } from "./task_images.ts";

const LAST_DESCRIPTOR = 0xffff_ffff;

/**
 * What the threads of a process share but for memory and descriptors. What
 * needs paths or /proc comes before the root directory changes.
 */
export function processProgram(
  images: TaskImages,
  host: Host,
  numbers: ServiceNumbers,
  agent: AddressRange,
  { ownDirectories, hasActions, ringFillers }: {
    ownDirectories: boolean;
    /** A thread has set those of signals already. */
    hasActions: boolean;
    /** The first process that has an io_uring mapped, by the id of its file. */
    ringFillers: ReadonlyMap<number, number>;
  },
): Program {
  const program = new Program();
  const { mm, fs, extension } = images;
  const leader = images.threads[0].core;
  restoreRingMemory(program, images, numbers, agent, ringFillers);
  finishRings(program, images, ringFillers);
  sealMemory(program, {
    mm,
    extensions: areaExtensions(images),
    files: mappableFiles(images),
  });
  restoreProcess(
    program,
    { task: leader.tc!, mm, extension, umask: fs.umask },
    host.readings,
    numbers.proc,
  );
  if (extension.semaphore_undos !== undefined) {
    const { sets } = extension.semaphore_undos;
    restoreSemaphoreUndos(program, sets, ownSemaphores(images));
  }
  if (ownDirectories) {
    restoreDirectories(
      program,
      regularFile(images, fs.cwd_id),
      regularFile(images, fs.root_id),
      numbers.madePaths,
    );
  }
  program.call(
    "close_range",
    [numbers.base, LAST_DESCRIPTOR, 0],
    "closing the agent's descriptors",
  );
  for (const { xsave } of extension.threads) {
    if (xsave !== undefined) restoreFpuPermission(program, xsave);
  }
  if (!hasActions) {
    restoreSignalActions(program, leader.tc!.sigactions, !extension.awaited);
  }
  return program;
}

/** The rings of AIO, io_urings and packet sockets, and what is in them. */
function restoreRingMemory(
  program: Program,
  images: TaskImages,
  numbers: ServiceNumbers,
  agent: AddressRange,
  ringFillers: ReadonlyMap<number, number>,
): void {
  const { mm } = images;
  const stored = storedPages(images.pagemap.entries);
  // Memory that several processes use is stored with the first of them.
  const rings = stored.length > 0 ? mm.vmas.filter(isRingArea) : [];
  const packets = mm.vmas.filter(({ status }) => status === VMA_STATUS.SOCKET);
  const numbersById = () =>
    new Map(images.descriptors.map(({ id, fd }) => [id, fd]));
  if (stored.length > 0 && packets.length > 0) {
    mapPacketRings(program, packets, numbersById());
  }
  if (mm.aios.length + rings.length === 0) return;
  const name = pagesName(images.pagemap.pages_id);
  const pages = program.call(
    "openat",
    [
      numbers.of(numbers.services.images),
      program.text(encodeText(name)),
      O.RDONLY | O.CLOEXEC,
      0,
    ],
    `opening ${name}`,
  );
  restoreRings(program, mm, readRings(images), pages);
  if (rings.length > 0) {
    const taken = [
      ...realAreas(mm),
      ...packets,
      { start: BigInt(agent.start), end: BigInt(agent.end) },
    ];
    mapRings(
      program,
      rings,
      taken,
      numbersById(),
      stored,
      pages,
      ({ shmid }) => ringFillers.get(Number(shmid)) === images.pid,
    );
  }
  program.call("close", [pages], `closing ${name}`);
}

/** What is registered with io_urings; and their threads see what was filled. */
function finishRings(
  program: Program,
  { set, pid, descriptors }: TaskImages,
  fillers: ReadonlyMap<number, number>,
): void {
  for (const ring of set.read("ckpt-rings", undefined) ?? []) {
    const { id, poller } = ring;
    const isOwner = ring.pid === pid;
    if (!isOwner && fillers.get(id) !== pid) continue;
    const holder = descriptors.find((entry) => entry.id === id);
    if (holder === undefined) continue;
    if (poller !== undefined) wakePoller(program, holder.fd);
    if (isOwner && !isBound(ring) && !isMadeByProcess(ring)) {
      registerAll(program, holder.fd, ring);
    }
  }
}

/** Undefined: the semaphores are those of the host. */
function ownSemaphores(
  { set, ids }: TaskImages,
): SemaphoreValues | undefined {
  if (!isEntered("ipc")) return undefined;
  const sets = set.read("ipcns-sem", ids.ipc_ns_id) ?? [];
  return new Map(sets.map(({ desc, extra }) => [desc.id, extra]));
}
