/**
 * Links that CRIU has made for files with other names (--link-remap). Its
 * images tell their names alone, so one goes only where nothing is lost by it.
 */
import { S_IF } from "../ffi/syscall.ts";
import { readImageSet } from "../image/image_set.ts";
import { statusAt, unlinkIfThere } from "./calls.ts";
import { isLinkName } from "./fate.ts";
import type { Cleaned } from "./links.ts";
import { readRemaps } from "./remaps.ts";

/**
 * Removes those of an image in this directory, if CRIU has made it. Those in
 * mount namespaces of a program's own stay: no path leads to them.
 *
 * @param cleaned what was done is added to it
 * @throws CkptError when the image is damaged
 */
export function cleanCriuLinks(directory: string, cleaned: Cleaned): void {
  const set = readImageSet(directory);
  if (set.manifest !== undefined) return;
  const { mnt_ns_id } = set.inventory.root_ids ?? {};
  const hasOwnMounts = set.indices("ids").some((pid) =>
    set.require("ids", pid).mnt_ns_id !== mnt_ns_id
  );
  if (hasOwnMounts) return;
  const files = new Map(
    set.require("files", undefined).map((entry) => [entry.id, entry]),
  );
  for (const remap of readRemaps(set, files).values()) {
    if (remap.kind !== "link" || !isLinkName(remap.link.name)) continue;
    const { name, mode } = remap.link;
    const found = statusAt(name);
    // A restore by CRIU has removed it.
    if (found === undefined) continue;
    const type = (mode ?? S_IF.REG) & S_IF.MT;
    if ((found.mode & S_IF.MT) !== type) cleaned.replaced.push(name);
    else if (found.nlink < 2n) cleaned.last.push(name);
    else if (unlinkIfThere(name)) cleaned.removed.push(name);
  }
}
