/** Locks of an image on files that are opened by their paths. */
import type { LockOfPath } from "../files/taken_locks.ts";
import type { Given } from "./given_descriptors.ts";
import type { TreeImages } from "./task_images.ts";

export function locksOfPaths(
  { locks, processes, files, remaps }: TreeImages,
  { byFile }: Pick<Given, "byFile">,
): LockOfPath[] {
  if (locks.length === 0) return [];
  const tables = new Map(
    processes.map(({ pid, descriptors }) => [pid, descriptors]),
  );
  return locks.flatMap((lock) => {
    const { id } = tables.get(lock.pid)!.find(({ fd }) => fd === lock.fd)!;
    const { reg } = files.get(id)!;
    return reg === undefined || remaps.has(id) || byFile.has(id)
      ? []
      : [{ lock, path: reg.name }];
  });
}
