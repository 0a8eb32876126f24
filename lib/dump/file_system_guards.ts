/**
 * Keeps image and file system of one moment, as far as the user wants it: by
 * watching files (--watch-fs) and by freezing file systems (--freeze-fs). Loaded
 * only when asked for.
 */
import { CkptError, EXIT } from "../error.ts";
import { SavedFiles } from "../ghost/save.ts";
import type { Report } from "../report.ts";
import { type DependedFile, dependedFiles } from "./depended_files.ts";
import {
  freezeProblems,
  FrozenFileSystems,
  syncBefore,
} from "./freeze_file_systems.ts";
import type { DumpOptions } from "./options.ts";
import { refuseFor } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";
import { FileWatch } from "./watch_files.ts";

export class FileSystemGuards implements Disposable {
  #watch: FileWatch | undefined;
  #frozen: FrozenFileSystems | undefined;

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
    const files = running === undefined
      ? []
      : dependedFiles(running.processes, new SavedFiles(), options.external);
    if (options.freezeFs !== undefined && running !== undefined) {
      refuseFor(freezeProblems(files, options), options.pid);
      await syncBefore(files);
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
   * @throws CkptError when a file system cannot be frozen
   */
  hold(seen: TreeSighting, saved: SavedFiles): void {
    const files = dependedFiles(
      seen.processes,
      saved,
      this.options.external,
    );
    this.#watch?.addNow(files);
    this.#freeze(files);
  }

  #freeze(files: readonly DependedFile[]): void {
    const { freezeFs } = this.options;
    if (freezeFs === undefined) return;
    const started = performance.now();
    this.#frozen = FrozenFileSystems.freeze(files, this.options, freezeFs);
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

  [Symbol.dispose](): void {
    this.#frozen?.[Symbol.dispose]();
    this.#watch?.[Symbol.dispose]();
    this.#frozen = this.#watch = undefined;
  }
}
