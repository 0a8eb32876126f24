/**
 * Keeps image and file system of one moment, as far as the user wants it: by
 * watching files (--watch-fs), by freezing file systems (--freeze-fs) and by
 * taking snapshots (--snapshot). Loaded only when asked for.
 */
import { CkptError, EXIT } from "../error.ts";
import type { SavedFiles } from "../ghost/save.ts";
import { DumpSnapshots } from "../ghost/snapshots.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import type { Report } from "../report.ts";
import {
  type DependedFile,
  dependedFiles,
  filesOutside,
  foundFiles,
} from "./depended_files.ts";
import {
  freezeProblems,
  FrozenFileSystems,
  syncBefore,
} from "./freeze_file_systems.ts";
import type { DumpOptions } from "./options.ts";
import {
  runSnapshotCommand,
  snapshotProblems,
  takeSnapshots,
} from "./take_snapshot.ts";
import { refuseFor } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";
import { FileWatch } from "./watch_files.ts";

export class FileSystemGuards implements Disposable {
  #watch: FileWatch | undefined;
  #frozen: FrozenFileSystems | undefined;
  #snapshots: DumpSnapshots | undefined;

  private constructor(
    readonly options: DumpOptions,
    readonly report: Report,
  ) {}

  /**
   * What can be done before the tree is stopped.
   *
   * @param running a look at the tree, if there was one
   * @throws CkptError refused, when a file system cannot be frozen
   */
  static async prepare(
    options: DumpOptions,
    running: TreeSighting | undefined,
    report: Report,
  ): Promise<FileSystemGuards> {
    const guards = new FileSystemGuards(options, report);
    const { external } = options;
    const namespaces = running?.namespaces;
    const files = running === undefined ? [] : filesOutside(
      foundFiles(running, external),
      external,
      namespaces,
    );
    if (options.freezeFs !== undefined && running !== undefined) {
      refuseFor(freezeProblems(files, options, namespaces), options.pid);
      await syncBefore(files, namespaces);
    }
    if (options.snapshot === "btrfs" && running !== undefined) {
      refuseFor(snapshotProblems(files, namespaces), options.pid);
    }
    if (options.watchFs !== undefined) {
      guards.#watch = new FileWatch();
      guards.#watch.add(files);
    }
    return guards;
  }

  /** From here on the tree stands still. */
  begin(): void {
    this.#watch?.begin();
  }

  /**
   * When it is known what it has, and links have been made.
   *
   * @throws CkptError when a file system cannot be frozen, or no snapshot taken
   */
  async hold(seen: TreeSighting, saved: SavedFiles): Promise<void> {
    const { external } = this.options;
    const { namespaces } = seen;
    const files = filesOutside(
      dependedFiles(seen.processes, saved, external, namespaces),
      external,
      namespaces,
    );
    this.#watch?.addNow(files);
    this.#freeze(files, namespaces);
    const { snapshot } = this.options;
    if (snapshot === undefined) return;
    if (snapshot === "btrfs") {
      this.#snapshots = new DumpSnapshots(this.options.imagesDirectory);
      takeSnapshots(files, namespaces, this.#snapshots, this.report);
    } else {
      await runSnapshotCommand(
        snapshot.command,
        files,
        namespaces,
        this.options,
        this.report,
      );
    }
    // There is a copy of everything: nobody has to wait any longer.
    this.confirm();
  }

  #freeze(
    files: readonly DependedFile[],
    namespaces: SeenNamespaces | undefined,
  ): void {
    const { freezeFs } = this.options;
    if (freezeFs === undefined) return;
    const started = performance.now();
    this.#frozen = FrozenFileSystems.freeze(
      files,
      this.options,
      freezeFs,
      namespaces,
    );
    this.report.log(
      3,
      `froze ${
        this.#frozen.fileSystems.map(({ mountPoint }) => mountPoint).join(", ")
      } in ${(performance.now() - started).toFixed(1)} ms`,
    );
  }

  /**
   * Before the tree goes on, or its image is complete: has anything changed?
   * Does nothing a second time.
   *
   * @throws CkptError when it has, unless that was only to be told
   */
  confirm(): void {
    const changes = this.#watch?.changes() ?? [];
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
    const frozen = this.#frozen;
    this.#frozen = undefined;
    frozen?.thaw();
    if (changes.length === 0) return;
    if (this.options.watchFs === "report") {
      for (const { path, why } of changes) {
        this.report.log(2, `file ${path}: ${why} during the dump`);
      }
      return;
    }
    throw new CkptError(
      EXIT.failed,
      `dumping task ${this.options.pid}`,
      changes.map(({ path, why }) => ({
        object: `file ${path}`,
        why: `${why} during the dump, so the image would not fit it`,
        remedy: "dump again; or give --watch-fs=report, to be told only",
      })),
    );
  }

  /** Adds to the images what has been done. */
  describe(writer: ImageWriter): void {
    const entries = this.#snapshots?.entries ?? [];
    if (entries.length > 0) writer.write("ckpt-snapshots", undefined, entries);
  }

  /** The image is complete: snapshots of one that it replaces go. */
  commit(): void {
    const { imagesDirectory } = this.options;
    (this.#snapshots ?? new DumpSnapshots(imagesDirectory)).commit();
    this.#snapshots = undefined;
  }

  [Symbol.dispose](): void {
    this.#frozen?.[Symbol.dispose]();
    this.#watch?.[Symbol.dispose]();
    this.#frozen = this.#watch = undefined;
    this.#snapshots?.[Symbol.dispose]();
    this.#snapshots = undefined;
  }
}
