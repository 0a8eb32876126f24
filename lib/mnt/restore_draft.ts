/** What all parts of a plan of mounts add to. */
import type { Reason } from "../error.ts";
import type { ImageMount } from "./image_mounts.ts";
import { describeMount } from "./mount.ts";

export class RestoreDraft {
  readonly reasons: Reason[] = [];
  #nextNumber: number;

  constructor(mounts: readonly ImageMount[]) {
    this.#nextNumber = mounts.reduce((most, { id }) => Math.max(most, id), 0) +
      1;
  }

  /** For a mount that is in no image. */
  newNumber(): number {
    return this.#nextNumber++;
  }

  refuse(mount: ImageMount, why: string, remedy?: string): void {
    this.reasons.push({ object: describeMount(mount), why, remedy });
  }
}
