/** Locks of an image on files that are opened by their paths. */
import type { LockOfPath } from "../files/taken_locks.ts";
import type { reg_file_entry } from "../image/schema.gen.ts";
import type { Given } from "./given_descriptors.ts";
import type { TreeImages } from "./task_images.ts";

/** @param wayTo how ckpt gets at a file; undefined: it is not there yet */
export function locksOfPaths(
  { locks, processes, files, remaps }: TreeImages,
  { byFile }: Pick<Given, "byFile">,
  wayTo: (entry: reg_file_entry) => string | undefined,
): LockOfPath[] {
  if (locks.length === 0) return [];
  const tables = new Map(
    processes.map(({ pid, descriptors }) => [pid, descriptors]),
  );
  return locks.flatMap((lock) => {
    const { id } = tables.get(lock.pid)!.find(({ fd }) => fd === lock.fd)!;
    const { reg } = files.get(id)!;
    if (reg === undefined || remaps.has(id) || byFile.has(id)) return [];
    const path = wayTo(reg);
    return path === undefined ? [] : [{ lock, path }];
  });
}
