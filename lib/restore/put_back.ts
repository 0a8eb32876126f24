/**
 * Puts snapshots that a dump has taken back in the place of their subvolumes,
 * for --from-snapshot. A writable snapshot of each changes places with the
 * subvolume at one moment: nothing is deleted, whatever happens. What was there
 * stays beside it, as "x.before-restore.1".
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { statx } from "../ghost/calls.ts";
import { type NotedSnapshot, whyNotTaken } from "../ghost/snapshots.ts";
import {
  createSnapshot,
  destroySubvolume,
  doing,
  exchange,
  freeName,
  hasSubvolumes,
  isSubvolume,
} from "../ghost/subvolumes.ts";
import type { ImageSet } from "../image/image_set.ts";
import { readMountInfo } from "../proc/read.ts";
import type { Report } from "../report.ts";

interface Exchanged {
  readonly subvolume: string;
  /** Where its former content is. */
  readonly former: string;
}

const ACTION = "putting snapshots back";

export class PutBack implements Disposable {
  readonly #exchanged: Exchanged[] = [];
  #kept = false;

  private constructor() {}

  /**
   * @throws CkptError when that is not possible; all is as it was then
   */
  static start(set: ImageSet): PutBack {
    const noted = (set.read("ckpt-snapshots", undefined) ?? []).map((
      entry,
    ) => ({
      ...entry,
      parent: entry.parent.toHex(),
    }));
    const reasons = noted.length === 0
      ? [{
        object: "--from-snapshot",
        why: "the dump has taken no snapshots",
        remedy: "leave it out; ckpt dump --snapshot btrfs takes them",
      }]
      : noted.flatMap((one) => whyNot(one, Deno.realPathSync(set.directory)));
    if (reasons.length > 0) throw new CkptError(EXIT.refused, ACTION, reasons);
    const putBack = new PutBack();
    try {
      for (const one of noted) putBack.#exchange(one);
      return putBack;
    } catch (error) {
      putBack[Symbol.dispose]();
      throw error;
    }
  }

  #exchange({ subvolume, snapshot }: NotedSnapshot): void {
    const former = freeName(subvolume, "before-restore");
    const fail = (why: string): never => {
      throw new CkptError(EXIT.failed, ACTION, [{ object: subvolume, why }]);
    };
    doing(() => createSnapshot(snapshot, former, false), fail);
    try {
      doing(() => exchange(former, subvolume), fail);
    } catch (error) {
      destroySubvolume(former);
      throw error;
    }
    this.#exchanged.push({ subvolume, former });
  }

  /** The program runs: what it has is to stay. */
  keep(report: Report): void {
    this.#kept = true;
    for (const { subvolume, former } of this.#exchanged) {
      report.log(
        2,
        `${subvolume} is as it was at the dump; what it was before this ` +
          `restore is ${former}, and is never removed by ckpt`,
      );
    }
  }

  /** Unless it is to be kept, all is put back as it was. */
  [Symbol.dispose](): void {
    if (this.#kept) return;
    for (const { subvolume, former } of this.#exchanged.splice(0).reverse()) {
      exchange(former, subvolume);
      destroySubvolume(former);
    }
  }
}

/** @param images real path of their directory */
function whyNot(noted: NotedSnapshot, images: string): Reason[] {
  const { subvolume, snapshot } = noted;
  const gone = whyNotTaken(noted);
  if (gone !== undefined) {
    return [{ object: `snapshot ${snapshot}`, why: gone }];
  }
  const reasons: Reason[] = [];
  const add = (why: string, remedy: string) =>
    reasons.push({ object: `subvolume ${subvolume}`, why, remedy });
  const byHand = `put ${snapshot} there by hand, and leave --from-snapshot out`;
  if (!isSubvolume(subvolume)) {
    return [{
      object: `subvolume ${subvolume}`,
      why: "it is not there any more",
      remedy: byHand,
    }];
  }
  if (hasSubvolumes(subvolume)) {
    add("there are other subvolumes in it, which no snapshot holds", byHand);
  }
  if (`${images}/`.startsWith(`${subvolume}/`)) {
    add(
      "the images are in it, and would not be there any more",
      "copy them to another place",
    );
  }
  const isMounted = readMountInfo(Deno.pid).some(({ mountPoint }) =>
    mountPoint === subvolume || mountPoint.startsWith(`${subvolume}/`)
  );
  if (isMounted) {
    add("it is mounted by itself, or something is mounted in it", byHand);
  } else if (statx(subvolume).mountId !== statx(snapshot).mountId) {
    add("it is on another mount than its snapshot", byHand);
  }
  return reasons;
}
