/**
 * The error of every parser in this folder: text of `/proc` that is not what
 * the kernel documents.
 */
import { CkptError, EXIT } from "../error.ts";

/** Where a piece of text comes from. */
export interface Place {
  /** The file, as a person would name it: "/proc/12/status". */
  readonly source: string;
  /** Counted from 1. */
  readonly line: number;
  /** The text of that line. */
  readonly text: string;
}

const LONGEST_EXCERPT = 200;

/**
 * Makes the error; the caller throws it.
 *
 * @param why what is wrong, without the text itself: "expected a decimal number"
 */
export function malformed(place: Place, why: string): CkptError {
  const excerpt = place.text.length > LONGEST_EXCERPT
    ? `${place.text.slice(0, LONGEST_EXCERPT)}...`
    : place.text;
  return new CkptError(EXIT.failed, `reading ${place.source}`, [{
    object: `${place.source}, line ${place.line}`,
    why: `${why}: ${JSON.stringify(excerpt)}`,
    remedy: "this kernel writes the file in a form that ckpt does not know; " +
      "report the line together with the output of `uname -r`",
  }]);
}
