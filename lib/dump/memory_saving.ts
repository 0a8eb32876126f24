/**
 * Memory on its way into page images: small ones several at a time, parents
 * before their children, who may share pages with them.
 */
import { type PageCounters, PAGES_WORTH_TWO } from "../mm/page_copy.ts";
import {
  type EarlyPages,
  type SavedParent,
  savePages,
  saveSmallProcesses,
} from "./memory.ts";
import type { Sighting } from "./survey.ts";

/** Calls of native code that copy memory side by side. */
const COPIES_AT_ONCE = 2;
/** Processes whose memory one such call copies, when it is little. */
const COPIED_TOGETHER = 16;

export class MemorySaving {
  readonly #jobs = new Map<number, Promise<SavedParent>>();
  readonly #running = new Set<Promise<unknown>>();
  #together: { seen: Sighting; source: number; path: string }[] = [];

  constructor(readonly counters: PageCounters, readonly signal: AbortSignal) {}

  async add(
    seen: Sighting,
    source: number,
    path: string,
    early: EarlyPages | undefined,
  ): Promise<void> {
    const { ppid, rss } = seen.stat;
    if (this.#together.some(({ seen: { pid } }) => pid === ppid)) {
      await this.#saveTogether();
    }
    if (BigInt(rss) < PAGES_WORTH_TWO && (early?.isEmpty ?? true)) {
      this.#together.push({ seen, source, path });
      if (this.#together.length === COPIED_TOGETHER) await this.#saveTogether();
      return;
    }
    const parent = this.#jobs.get(ppid);
    const save = async () => [{
      source,
      path,
      pages: await savePages(
        source,
        seen.vmas.vmas,
        early,
        path,
        this.counters,
        this.signal,
        await parent,
      ),
    }];
    await this.#begin([seen.pid], save());
  }

  async #saveTogether(): Promise<void> {
    const members = this.#together;
    if (members.length === 0) return;
    this.#together = [];
    const parents = Promise.all(
      members.map(({ seen }) => this.#jobs.get(seen.stat.ppid)),
    );
    const save = async () => {
      const known = await parents;
      const saved = await saveSmallProcesses(
        members.map(({ seen, source, path }, i) => ({
          source,
          vmas: seen.vmas.vmas,
          path,
          parent: known[i],
        })),
        this.counters,
        this.signal,
      );
      return members.map(({ source, path }, i) => ({
        source,
        path,
        pages: saved[i],
      }));
    };
    await this.#begin(members.map(({ seen: { pid } }) => pid), save());
  }

  async #begin(
    pids: readonly number[],
    saved: Promise<SavedParent[]>,
  ): Promise<void> {
    pids.forEach((pid, i) => {
      const job = saved.then((all) => all[i]);
      job.catch(() => {}); // end() tells
      this.#jobs.set(pid, job);
    });
    const over = saved.finally(() => this.#running.delete(over));
    over.catch(() => {});
    this.#running.add(over);
    if (this.#running.size >= COPIES_AT_ONCE) {
      await Promise.race(this.#running);
    }
  }

  /** @returns what was saved, by the pids */
  async end(): Promise<ReadonlyMap<number, SavedParent>> {
    await this.#saveTogether();
    const saved = new Map<number, SavedParent>();
    for (const [pid, job] of this.#jobs) saved.set(pid, await job);
    return saved;
  }

  /** Waits until nothing is being copied, whatever came of it. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#running);
  }
}
