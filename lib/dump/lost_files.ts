/** What a dump does about files whose path does not lead to them. */
import type { Reason } from "../error.ts";
import { decideFate, type FateOptions } from "../ghost/fate.ts";
import type { FilesInUse } from "../ghost/files_in_use.ts";
import { describe } from "../ghost/save.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import type { CaredFile } from "./options.ts";

/** Each such file once, with one of those that use it. */
export function caredFiles(
  files: FilesInUse,
  options: FateOptions,
): CaredFile[] {
  return files.lost.map((lost) => {
    const { link, holder, task, allocated } = lost;
    const fate = decideFate(lost, options);
    return {
      file: link,
      holder,
      task,
      fate: fate.kind,
      bytes: allocated,
      ...(fate.kind === "elsewhere" && { path: fate.path }),
      ...(fate.kind === "link" && { option: "--link-remap" }),
      ...(fate.kind === "refused" && { why: fate.why }),
      ...(fate.kind === "refused" && fate.option && { option: fate.option }),
    };
  });
}

/** Why some of them cannot be saved. */
export function lostFileReasons(
  files: FilesInUse,
  options: FateOptions,
  namespaces?: Pick<SeenNamespaces, "isRemovedSource">,
): { reasons: Reason[]; neededOptions: string[] } {
  const reasons: Reason[] = [];
  const neededOptions: string[] = [];
  for (const lost of files.lost) {
    const fate = decideFate(lost, options);
    if (fate.kind === "ghost" && namespaces?.isRemovedSource(lost.status)) {
      reasons.push({
        object: describe(lost),
        why:
          "it was deleted, and is open by one mount while another shows it, " +
          "which is not supported",
        remedy: "unmount it, or open it by the mount that shows it",
      });
    }
    if (fate.kind !== "refused") continue;
    const { why, remedy, option } = fate;
    reasons.push({ object: describe(lost), why, remedy });
    if (option !== undefined) neededOptions.push(option);
  }
  return { reasons, neededOptions };
}
