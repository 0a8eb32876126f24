/** For tests: what is wrong with an image. */
import { CkptError } from "../../../error.ts";
import { readImageSet } from "../../image_set.ts";
import { validateImageSet } from "../mod.ts";

/** @returns what the check of a directory of images tells, each by its object */
export function wrongIn(directory: string): string[] {
  try {
    validateImageSet(readImageSet(directory));
    return [];
  } catch (error) {
    if (!(error instanceof CkptError)) throw error;
    return error.reasons.map(({ object, why }) => `${object}: ${why}`);
  }
}
