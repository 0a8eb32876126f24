/** Errors about images: always with the file, and the entry and field if known. */

import { CkptError, EXIT, type Reason } from "../error.ts";
import { FieldError } from "./message.ts";

/** One thing that is wrong with an image. */
export interface ImageProblem {
  /** The file's name within the directory. */
  file: string;
  /** Which entry, counted from 0. */
  entry?: number | undefined;
  /** Which field of it; "" for the entry as a whole. */
  field?: string | undefined;
  why: string;
  remedy?: string | undefined;
}

export function imageReason(problem: ImageProblem): Reason {
  const object = [
    problem.file,
    problem.entry === undefined ? "" : `entry ${problem.entry}`,
    problem.field ? `field ${problem.field}` : "",
  ].filter(Boolean).join(", ");
  return problem.remedy === undefined
    ? { object, why: problem.why }
    : { object, why: problem.why, remedy: problem.remedy };
}

/**
 * @param directory the directory of images, for the first words
 * @param problems at least one
 */
export function imageError(
  directory: string,
  problems: readonly ImageProblem[],
  options?: ErrorOptions,
): CkptError {
  return new CkptError(
    EXIT.image,
    `reading the images in ${directory}`,
    problems.map(imageReason),
    options,
  );
}

/** The same for an error thrown while an entry was decoded. */
export function entryError(
  directory: string,
  file: string,
  entry: number,
  error: unknown,
): unknown {
  if (!(error instanceof FieldError)) return error;
  const { path: field, why } = error;
  return imageError(directory, [{ file, entry, field, why }]);
}
