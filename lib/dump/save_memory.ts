/** The memory of a tree, beside whatever else there is to do. */
import { every } from "../ffi/pause.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { pagesName } from "../image/kinds.ts";
import type { PageCounters, StoredPages } from "../mm/page_copy.ts";
import type { Report } from "../report.ts";
import { pagesId } from "./describe.ts";
import { MemorySaving } from "./memory_saving.ts";
import type { Still } from "./still.ts";

const PROGRESS_MS = 100;
/** Below this nobody waits long enough to see progress. */
const PAGES_WORTH_PROGRESS = 16384;

export async function saveMemory(
  { seen: { objects }, processes, hasSnapshots }: Still,
  writer: ImageWriter,
  report: Report,
  counters: PageCounters,
): Promise<StoredPages[]> {
  const total = processes.reduce((sum, { seen }) => sum + seen.stat.rss, 0);
  using _shown = total < PAGES_WORTH_PROGRESS
    ? undefined
    : every(PROGRESS_MS, () => {
      report.progress("saving memory (pages)", counters.scanned, total);
    });
  const saving = new MemorySaving(counters, report.signal);
  // Memory that several processes use is stored with the first of them.
  const memories = new Set<number>();
  try {
    for (const [i, { seen, asked, early }] of processes.entries()) {
      const path = writer.createRaw(pagesName(pagesId(i)));
      const { vm } = objects.get(seen.pid)!;
      if (memories.has(vm)) continue;
      memories.add(vm);
      const source = hasSnapshots ? asked!.snapshot!.pid : seen.tid;
      await saving.add(seen, source, path, hasSnapshots ? early : undefined);
    }
    const none = { entries: [], guards: [], inherited: [] };
    const saved = await saving.end();
    return processes.map(({ seen }) => saved.get(seen.pid)?.pages ?? none);
  } finally {
    await saving.settle();
  }
}

/**
 * @param work what can be done while memory is saved; when it fails, nothing
 * is being saved any more
 */
export async function untilSaved<T>(
  saving: Promise<unknown>,
  work: () => Promise<T>,
): Promise<T> {
  saving.catch(() => {}); // the work will know
  try {
    return await work();
  } catch (error) {
    await Promise.allSettled([saving]);
    throw error;
  }
}
