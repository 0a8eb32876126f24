/**
 * The one error type of ckpt. An error says what was being done (`action`), and for each reason: to which
 * object, why it failed, and what to do about it. Only `lib/cli` turns it into text; every other layer throws it.
 */

/** Exit codes; documented in `docs/exit-codes.md`, stable. */
export const EXIT = {
  ok: 0,
  /** The kernel or the host refused something; the cause is named. */
  failed: 1,
  /** The command line is wrong. */
  usage: 2,
  /** The program holds something that cannot be saved or restored (yet); nothing was touched. */
  refused: 3,
  /** An image is missing, incomplete, damaged or of an unknown version. */
  image: 4,
  /** A needed capability or permission is missing. */
  permission: 5,
  /** The task is gone, or was never there. */
  gone: 6,
  /** Stopped by a signal or by --timeout; everything was undone. */
  interrupted: 7,
} as const;

export type ExitCode = typeof EXIT[keyof typeof EXIT];

/** One cause, told so that a person can act on it. */
export interface Reason {
  /** What it is about: "descriptor 5 of task 1234", "mm-12.img, entry 3, field vmas". */
  object: string;
  /** What is wrong with it, or what the kernel answered. */
  why: string;
  /** What to do about it; the exact flag where there is one. */
  remedy?: string;
}

export class CkptError extends Error {
  override readonly name = "CkptError";

  /**
   * @param exit what the process will exit with
   * @param action what was being done: "dumping task 1234", "reading the images in /x"
   * @param reasons at least one; first cause first
   */
  constructor(
    readonly exit: ExitCode,
    readonly action: string,
    readonly reasons: readonly Reason[],
    options?: ErrorOptions,
  ) {
    super(
      `${action}: ${reasons.map((r) => `${r.object}: ${r.why}`).join("; ")}`,
      options,
    );
  }
}
