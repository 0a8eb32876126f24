/** Collects all that is wrong with an image, so that it can be told at once. */

import { CkptError, EXIT, type Reason } from "../../error.ts";
import { imageReason } from "../image_error.ts";
import type { ImageSet } from "../image_set.ts";
import {
  type Content,
  type ImageIndex,
  type ImageKind,
  imageName,
} from "../kinds.ts";

/** More reasons than this help nobody; the rest is only counted. */
const MOST_REASONS = 200;

export class Findings {
  readonly reasons: Reason[] = [];
  #more = 0;
  /** Files whose damage was noted already. */
  readonly #damaged = new Set<string>();

  constructor(readonly set: ImageSet) {}

  /** Notes one thing that is wrong. `field` may be "". */
  add(
    file: string,
    entry: number | undefined,
    field: string,
    why: string,
    remedy?: string,
  ): void {
    this.#push(imageReason({ file, entry, field, why, remedy }));
  }

  #push(reason: Reason): void {
    if (this.reasons.length < MOST_REASONS) this.reasons.push(reason);
    else this.#more++;
  }

  /** The content of a file; when it is damaged that is noted, once. */
  read<K extends ImageKind>(
    kind: K,
    index: ImageIndex,
  ): Content<K> | undefined {
    const name = imageName(kind, index);
    if (this.#damaged.has(name)) return undefined;
    try {
      return this.set.read(kind, index);
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      this.#damaged.add(name);
      error.reasons.forEach((reason) => this.#push(reason));
      return undefined;
    }
  }

  /** The same for a file that has to be there; that it is not is noted. */
  require<K extends ImageKind>(
    kind: K,
    index: ImageIndex,
  ): Content<K> | undefined {
    const name = imageName(kind, index);
    if (!this.set.has(kind, index) && !this.#damaged.has(name)) {
      this.#damaged.add(name);
      this.add(name, undefined, "", "is missing");
    }
    return this.read(kind, index);
  }

  /** @throws CkptError with everything that was noted, if anything was */
  finish(): void {
    if (this.reasons.length === 0) return;
    const reasons = [...this.reasons];
    if (this.#more > 0) {
      reasons.push({
        object: this.set.directory,
        why: `${this.#more} more of this kind`,
      });
    }
    throw new CkptError(
      EXIT.image,
      `checking the images in ${this.set.directory}`,
      reasons,
    );
  }
}
