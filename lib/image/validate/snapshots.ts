/** Checks the list of snapshots that a dump has made. */
import { imageName } from "../kinds.ts";
import type { Findings } from "./findings.ts";

const UUID_BYTES = 16;

export function checkSnapshots(findings: Findings): void {
  const seen = new Set<string>();
  (findings.read("ckpt-snapshots", undefined) ?? []).forEach((entry, place) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-snapshots"), place, field, why);
    for (const field of ["subvolume", "snapshot"] as const) {
      const path = entry[field];
      if (!path.startsWith("/")) wrong(field, `${path} is no absolute path`);
      if (seen.has(path)) wrong(field, `${path} is there twice`);
      seen.add(path);
    }
    if (entry.parent.length !== UUID_BYTES) {
      wrong("parent", `has ${entry.parent.length} bytes, not ${UUID_BYTES}`);
    }
  });
}
