/** Checks files whose path does not lead to them. */
import { imageName } from "../kinds.ts";
import { fd_types, remap_type } from "../schema.gen.ts";
import { type FileTable, LARGEST_FILE } from "./file_table.ts";
import type { Findings } from "./findings.ts";

/** What CRIU's images do not tell of ghosts. */
export function checkGhosts(findings: Findings): void {
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

export function checkRemaps(findings: Findings, table: FileTable): void {
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
