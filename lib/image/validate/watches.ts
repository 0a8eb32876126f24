/** Checks what inotify and fanotify watch. */
import { imageName } from "../kinds.ts";
import { fd_types, type fh_entry } from "../schema.gen.ts";
import type { FileTable, Wrong } from "./file_table.ts";
import type { Findings } from "./findings.ts";

/** MAX_HANDLE_SZ of linux/exportfs.h. */
const LONGEST_HANDLE = 128;

export function checkHandle(
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

/** What an image of ours tells of inotify and fanotify. */
export function checkWatches(findings: Findings, table: FileTable): void {
  const seen = new Set<number>();
  (findings.read("ckpt-watches", undefined) ?? []).forEach((entry, place) => {
    const { id, targets, filesystems } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-watches"), place, field, why);
    const { ify, ffy } = table.file(id) ?? {};
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (ify === undefined && ffy === undefined) {
      wrong("id", `${id} is no inotify or fanotify`);
    }
    for (const { index, file } of targets) {
      if ((ify?.wd ?? ffy?.mark)?.[index] === undefined) {
        wrong("targets.index", `${id} has no watch ${index}`);
      }
      if (!table.has(fd_types.REG, file)) {
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
