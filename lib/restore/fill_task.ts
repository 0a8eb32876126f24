/** Fills memory of a process from outside, while its agent fills the rest. */
import { nativeError } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { close, O, open } from "../ffi/syscall.ts";
import { PageCounters } from "../mm/page_copy.ts";
import type { StoredRange } from "../mm/stored_pages.ts";
import { pagesPath, type TaskImages } from "./task_images.ts";

/**
 * @param stored where the pages belong; it is mapped, and writable
 * @param signal ends it early; its reason is thrown then
 * @throws CkptError
 */
export async function fillTask(
  { pid, set, pagemap }: Pick<TaskImages, "pid" | "set" | "pagemap">,
  stored: readonly StoredRange[],
  signal: AbortSignal,
): Promise<void> {
  const parts = stored.flatMap((
    { start, end, offset },
  ) => [start, end, offset]);
  const words = BigUint64Array.from(parts);
  const counters = new PageCounters();
  const cancel = () => counters.cancel();
  const image = open(pagesPath(set, pagemap), O.RDONLY);
  signal.addEventListener("abort", cancel);
  try {
    const result = await library("filling").ckpt_fill_task(
      pid,
      image,
      new Uint8Array(words.buffer),
      BigInt(stored.length),
      counters.buffer,
    );
    signal.throwIfAborted();
    if (result < 0n) {
      throw nativeError(result, `filling the memory of task ${pid}`);
    }
  } finally {
    signal.removeEventListener("abort", cancel);
    close(image);
  }
}
