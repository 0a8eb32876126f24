/** Pids for helpers whose number does not matter. Pure. */

export class SparePids {
  readonly #free: number[] = [];

  /**
   * @param candidates gives another pid that is free on this host at each call
   * @param isTaken whether the image has a use for the number
   */
  constructor(
    readonly candidates: () => number,
    readonly isTaken: (pid: number) => boolean,
  ) {}

  take(): number {
    const again = this.#free.pop();
    if (again !== undefined) return again;
    for (;;) {
      const pid = this.candidates();
      if (!this.isTaken(pid)) return pid;
    }
  }

  /** When the helper is reaped. */
  giveBack(pid: number): void {
    this.#free.push(pid);
  }
}
