/** What a restore would do, told without doing it. */
import type { Reason } from "../error.ts";
import { PAGE_SIZE, pageCount } from "../image/pagemap.ts";
import type { RestorePlan } from "./options.ts";
import type { TreeImages } from "./task_images.ts";

export function planOf(
  { processes, remaps, files }: TreeImages,
  reasons: readonly Reason[],
): RestorePlan {
  return {
    reasons,
    processes: processes.map(({ pid, threads, pagemap: { entries } }) => ({
      pid,
      name: threads[0].core.tc!.comm,
      threads: threads.length,
      memory: entries.reduce((sum, entry) => sum + pageCount(entry), 0) *
        PAGE_SIZE,
    })),
    ghosts: [
      ...new Set(
        [...remaps].flatMap(([id, { kind }]) =>
          kind === "ghost" ? [files.get(id)!.reg!.name] : []
        ),
      ),
    ],
  };
}
