/**
 * Which number a new descriptor gets: the kernel always gives the lowest that
 * is free (open(2)), so a plan can know it beforehand.
 */

export class DescriptorNumbers {
  readonly #open = new Set<number>();
  #lowest = 0;

  /** Takes the lowest free number, as open(2) does. */
  take(): number {
    while (this.#open.has(this.#lowest)) this.#lowest++;
    this.#open.add(this.#lowest);
    return this.#lowest;
  }

  /** Takes a given number, as dup3(2) does. */
  takeAt(fd: number): void {
    this.#open.add(fd);
  }

  free(fd: number): void {
    this.#open.delete(fd);
    this.#lowest = Math.min(this.#lowest, fd);
  }
}
