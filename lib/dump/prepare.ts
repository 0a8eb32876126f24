/**
 * What is made ready while the program still runs: what takes long, and modules
 * that only some programs need.
 */
import {
  anySocket,
  anyWaiting,
  awaitsAccept,
  mayBeCorked,
  mayShareItsPort,
  type SeenSocket,
  sendsToGroups,
  type SocketHolder,
} from "../files/sockets.ts";
import { IPPROTO_TCP } from "../files/socket_kind.ts";
import type { Reason } from "../error.ts";
import type { MappedFlocks } from "../files/mapped_flocks.ts";
import type { Md5Keys } from "../files/md5_keys.ts";
import { seenMasters } from "../files/terminals.ts";
import type { LastingTracer } from "../ffi/lasting_tracer.ts";
import { statusAt } from "../ghost/calls.ts";
import { readSysvSemaphores } from "../proc/read.ts";
import type { Report } from "../report.ts";
import type { SemaphoreUndos } from "../task/kernel_semaphore_undo.ts";
import type { FileSystemGuards } from "./file_system_guards.ts";
import type { DumpOptions } from "./options.ts";
import type { Sighting } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";
import type { DumpedTerminals } from "./terminals.ts";
import type { VforkWaiters } from "./vfork.ts";

/** Seccomp filters that all threads of a process are likely to have. */
export function hasFilters(seen: TreeSighting | undefined): boolean {
  return seen?.processes.some(({ status }) => (status.seccomp ?? 0) !== 0) ??
    false;
}

export async function startLastingTracer(): Promise<LastingTracer> {
  const { LastingTracer } = await import("../ffi/lasting_tracer.ts");
  return LastingTracer.start();
}

/** Whether a dump into this directory has taken some (lib/ghost/snapshots.ts). */
function hasSnapshots(directory: string): boolean {
  return statusAt(`${directory}/ckpt-snapshots.json`) !== undefined;
}

export async function prepareGuards(
  options: DumpOptions,
  running: TreeSighting | undefined,
  report: Report,
): Promise<FileSystemGuards | undefined> {
  const { watchFs, freezeFs, snapshot, replace, imagesDirectory } = options;
  if (
    (watchFs ?? freezeFs ?? snapshot) === undefined &&
    !(replace && hasSnapshots(imagesDirectory))
  ) return undefined;
  const { FileSystemGuards } = await import("./file_system_guards.ts");
  return await FileSystemGuards.prepare(options, running, report);
}

/** Takes its time while the program runs, not when it stands still. */
export async function prepareKernelSockets(
  processes: readonly Sighting[],
): Promise<void> {
  const isOf = (socket: SeenSocket) =>
    socket.family === "inet" && mayBeCorked(socket) ||
    mayShareItsPort(socket) || sendsToGroups(socket) || awaitsAccept(socket);
  if (!anySocket(processes, isOf) && !anyWaiting(processes)) return;
  const { kernelSockets } = await import("../files/kernel_sockets.ts");
  kernelSockets();
}

/** Changed by few programs, and hardly ever after they have begun. */
export async function readKeys(
  processes: readonly SocketHolder[],
): Promise<Md5Keys | undefined> {
  const isTcp = (socket: SeenSocket) =>
    socket.family === "inet" && socket.kind.protocol === IPPROTO_TCP;
  if (!anySocket(processes, isTcp)) return undefined;
  return (await import("../files/md5_keys.ts")).readMd5Keys();
}

/** Undefined: the tree has no master of a pseudo terminal. */
export async function prepareTerminals(
  processes: readonly Sighting[],
): Promise<DumpedTerminals | undefined> {
  if (seenMasters(processes).length === 0) return undefined;
  const { DumpedTerminals } = await import("./terminals.ts");
  return new DumpedTerminals(processes);
}

/**
 * @returns what reads threads that wait in vfork(2), or why nothing can;
 * undefined: none do
 */
export async function openWaiters(
  seen: TreeSighting | undefined,
): Promise<VforkWaiters | string | undefined> {
  if (seen === undefined || seen.vforks.size === 0) return undefined;
  return (await import("./vfork.ts")).VforkWaiters.open();
}

/** @param waiters as of {@link openWaiters} */
export function vforkProblems(
  seen: TreeSighting | undefined,
  waiters: VforkWaiters | string | undefined,
  { leaveRunning, leaveStopped }: Partial<DumpOptions>,
): Reason[] {
  if (seen === undefined || waiters === undefined) return [];
  if (typeof waiters !== "string") {
    return waiters.problems(seen, !leaveRunning && !leaveStopped);
  }
  return [...seen.vforks].map(([child, pid]) => ({
    object: `task ${pid}`,
    why: `it waits in vfork(2) until task ${child} executes a program or ` +
      "ends; nobody can stop it there, and what it holds cannot be looked up " +
      `in the kernel: ${waiters}`,
    remedy: "run ckpt with CAP_BPF and CAP_PERFMON, or dump again when it " +
      "does not wait any more",
  }));
}

/**
 * Undefined: there is nothing to read. What cannot be looked up is lost, and
 * said so.
 */
export async function prepareSemaphoreUndos(
  processes: readonly Sighting[],
  report: Report,
): Promise<SemaphoreUndos | undefined> {
  // On most hosts there are none.
  if (readSysvSemaphores().length === 0) return undefined;
  const { mayHaveUndos, SemaphoreUndos } = await import(
    "../task/kernel_semaphore_undo.ts"
  );
  if (!mayHaveUndos(processes.map(({ tid }) => tid))) return undefined;
  const opened = SemaphoreUndos.open();
  if (typeof opened !== "string") return opened;
  report.log(
    2,
    "System V semaphores that the program holds with SEM_UNDO, if any, are " +
      `not held any more once it is restored: ${opened}`,
  );
  return undefined;
}

/** Those of files that are only mapped, where the tree has any flocks. */
export async function readFlocks(
  locks: string,
  processes: readonly Sighting[],
): Promise<ReadonlyMap<number, MappedFlocks>> {
  const pids = new Set(processes.map(({ pid }) => pid));
  const takers = locks.matchAll(/ FLOCK +\S+ +\S+ (\d+) /g);
  if (!takers.some(([, pid]) => pids.has(Number(pid)))) return new Map();
  const { readMappedFlocks } = await import("../files/mapped_flocks.ts");
  return readMappedFlocks(locks, processes);
}
