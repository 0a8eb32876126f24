/**
 * Snapshots of subvolumes that a dump has taken. Each is written down in the
 * directory of images before it is made, so that whatever happens to ckpt,
 * `ckpt clean` finds it.
 */
import { CkptError, EXIT } from "../error.ts";
import type { ckpt_snapshot_entry } from "../image/schema.gen.ts";
import { splitPath, statusAt, statx } from "./calls.ts";
import type { Cleaned } from "./links.ts";
import { readList, writeList } from "./noted_list.ts";
import {
  createSnapshot,
  destroySubvolume,
  doing,
  freeName,
  isSubvolume,
  subvolumeInfo,
} from "./subvolumes.ts";

const SNAPSHOTS_NAME = "ckpt-snapshots.json";

export interface NotedSnapshot {
  readonly subvolume: string;
  readonly snapshot: string;
  /** The uuid that the subvolume had: that of the snapshot's parent. */
  readonly parent: string;
}

const ACTION = "taking snapshots";

export class DumpSnapshots implements Disposable {
  readonly #before: readonly NotedSnapshot[];
  readonly #own: NotedSnapshot[] = [];
  #committed = false;

  /** @param directory of the images; it has to be there */
  constructor(readonly directory: string) {
    this.#before = readSnapshots(directory);
  }

  /** @throws CkptError when the file system refuses */
  add(subvolume: string): string {
    const snapshot = placeFor(subvolume);
    doing(() => {
      const { uuid } = subvolumeInfo(subvolume);
      this.#own.push({ subvolume, snapshot, parent: uuid });
      writeSnapshots(this.directory, [...this.#before, ...this.#own]);
      createSnapshot(subvolume, snapshot, true);
    }, (why) => {
      throw new CkptError(EXIT.failed, ACTION, [{ object: snapshot, why }]);
    });
    return snapshot;
  }

  /** Those that were taken, for ckpt-snapshots.img. */
  get entries(): ckpt_snapshot_entry[] {
    return this.#own.map(({ subvolume, snapshot, parent }) => ({
      subvolume,
      snapshot,
      parent: Uint8Array.fromHex(parent),
    }));
  }

  /** The image is complete: snapshots of the one it replaced go. */
  commit(): void {
    this.#committed = true;
    for (const noted of this.#before) removeSnapshot(noted);
    writeSnapshots(this.directory, this.#own);
  }

  [Symbol.dispose](): void {
    if (this.#committed || this.#own.length === 0) return;
    for (const noted of this.#own) removeSnapshot(noted);
    writeSnapshots(this.directory, this.#before);
  }
}

/** Beside the subvolume; in it, where it is mounted by itself. */
function placeFor(subvolume: string): string {
  const { directory } = splitPath(subvolume);
  const beside = subvolume !== "/" &&
    statx(directory).mountId === statx(subvolume).mountId;
  return freeName(
    beside ? subvolume : `${subvolume === "/" ? "" : subvolume}/`,
    "ckpt-snapshot",
  );
}

/** Why a snapshot is not the one that was taken; undefined: it is. */
export function whyNotTaken(
  { snapshot, parent }: NotedSnapshot,
): string | undefined {
  if (!isSubvolume(snapshot)) return "it is not there any more";
  const info = subvolumeInfo(snapshot);
  return info.parent !== parent
    ? "it is a snapshot of something else"
    : !info.readOnly
    ? "it may have been written to: it is not read-only any more"
    : undefined;
}

function removeSnapshot(noted: NotedSnapshot): keyof Cleaned {
  if (statusAt(noted.snapshot) === undefined) return "missing";
  if (whyNotTaken(noted) !== undefined) return "replaced";
  destroySubvolume(noted.snapshot);
  return "removed";
}

/** Removes the snapshots that dumps into this directory have taken. */
export function cleanSnapshots(directory: string, cleaned: Cleaned): void {
  for (const noted of readSnapshots(directory)) {
    cleaned[removeSnapshot(noted)].push(noted.snapshot);
  }
  writeSnapshots(directory, []);
}

/**
 * The snapshots that dumps into this directory have taken.
 *
 * @throws CkptError when the list is damaged
 */
export function readSnapshots(directory: string): NotedSnapshot[] {
  return readList(directory, SNAPSHOTS_NAME, "snapshots", isNoted);
}

function isNoted(value: unknown): value is NotedSnapshot {
  const { subvolume, snapshot, parent } = (value ?? {}) as Record<
    string,
    unknown
  >;
  return [subvolume, snapshot].every((path) =>
    typeof path === "string" && path.startsWith("/")
  ) && typeof parent === "string" && /^[0-9a-f]{32}$/.test(parent);
}

function writeSnapshots(
  directory: string,
  all: readonly NotedSnapshot[],
): void {
  writeList(`${directory}/${SNAPSHOTS_NAME}`, all);
}
