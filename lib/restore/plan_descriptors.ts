/** Plans how all processes of a tree get their descriptors. */
import { freshBuffers } from "../files/fresh_sockets.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { canBindAside } from "../files/unix_paths.ts";
import { readObjectImages } from "../files/object_images.ts";
import { readPipeImages } from "../files/pipe_images.ts";
import { isMadeByProcess } from "../files/register_with_ring.ts";
import {
  type DescriptorPrograms,
  emptyPrograms,
  restoreDescriptors,
} from "../files/restore_descriptors.ts";
import { armTimerfds } from "../files/timerfd.ts";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";
import { clockNow } from "../task/posix_timers.ts";
import type { Given } from "./given_descriptors.ts";
import type { ServiceNumbers } from "./services.ts";
import type { TreeImages } from "./task_images.ts";

/** How all processes get their descriptors. */
export interface DescriptorPlan {
  /** By pid. */
  readonly programs: ReadonlyMap<number, DescriptorPrograms>;
  /** The number above all that are in use meanwhile. */
  readonly end: number;
  /** Bytes of the largest program. */
  readonly largest: number;
}

export function planDescriptors(
  images: TreeImages,
  given: Given,
  numbers: ServiceNumbers,
  rings: readonly ckpt_ring_entry[],
  holders: ReadonlyMap<number, number>,
): DescriptorPlan {
  const own = rings.filter(isMadeByProcess);
  const tables = images.processes.map(({ pid, ids, descriptors }) => ({
    pid: holders.get(pid) ?? pid,
    filesId: ids.files_id,
    entries: descriptors,
    absent: own.flatMap((ring) =>
      ring.pid === pid ? [] : [numbers.ring(ring.id)]
    ),
    programs: emptyPrograms(),
  }));
  const end = restoreDescriptors(
    tables,
    {
      files: images.files,
      made: new Map([
        ...[...numbers.services.made].map(([id, { fd, reopen }]) =>
          [
            id,
            reopen
              ? { reopen, path: numbers.madePaths.get(id)! }
              : { reopen, fd: numbers.of(fd) },
          ] as const
        ),
        ...own.map(({ id }) =>
          [id, { reopen: false, fd: numbers.ring(id) }] as const
        ),
      ]),
      sources: numbers.rootedPaths,
      ...readPipeImages(images.set),
      objects: readObjectImages(images.set),
      sockets: images.sockets,
      locks: images.locks,
      exists: taskExists,
      freshBuffers: freshBuffers(),
      bindsAside: canBindAside(images.processes),
      places: new Map(
        [...numbers.services.places].map(([id, fd]) => [id, numbers.of(fd)]),
      ),
      openers: new Map([
        ...images.terminals.own,
        ...own.map(({ id, pid }) => [id, pid] as const),
      ]),
    },
    new Map(
      [...given.byFile].map(([id, { fd, reopen }]) => [
        id,
        { fd: numbers.of(fd), reopen },
      ]),
    ),
    numbers,
  );
  const programs = new Map(
    tables.map(({ programs }, i) => [images.processes[i].pid, programs]),
  );
  const timers = armTimerfds(images.processes, images.files, clockNow);
  const largest = [...timers.values()].reduce(
    (most, { size }) => Math.max(most, size),
    largestOf(programs),
  );
  return { programs, end, largest };
}

/** It holds what was in pipes. */
function largestOf(all: ReadonlyMap<number, DescriptorPrograms>): number {
  return [...all.values()].reduce(
    (most, { open, fetch, watch, finish }) =>
      Math.max(most, open.size, fetch.size, watch.size, finish.size),
    0,
  );
}
