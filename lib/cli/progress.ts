/** One line on the terminal that says how far a long step has come. */

/** Work shorter than this shows nothing. */
const QUIET_MILLISECONDS = 500;
/** A person reads no faster, and a terminal is slow. */
const REDRAW_MILLISECONDS = 100;

/** Back to the first column, and erase the line (ECMA-48: CR, EL). */
const ERASE_LINE = "\r\x1b[K";

export class ProgressLine {
  #write: (text: string) => void;
  #columns: () => number;
  #now: () => number;
  #started: number;
  #drawn = -Infinity;
  #visible = false;

  /** @param now milliseconds of a clock that never goes back */
  constructor(
    write: (text: string) => void,
    columns: () => number,
    now: () => number,
  ) {
    this.#write = write;
    this.#columns = columns;
    this.#now = now;
    this.#started = now();
  }

  update(step: string, done: bigint | number, total: bigint | number): void {
    const now = this.#now();
    if (now - this.#started < QUIET_MILLISECONDS) return;
    if (now - this.#drawn < REDRAW_MILLISECONDS) return;
    this.#drawn = now;
    this.#visible = true;
    // A line as wide as the terminal would wrap, and could not be erased.
    const text = formatProgress(step, done, total);
    this.#write(ERASE_LINE + text.slice(0, Math.max(0, this.#columns() - 1)));
  }

  /** Erases the line, so that something else can be written in its place. */
  clear(): void {
    if (!this.#visible) return;
    this.#visible = false;
    this.#drawn = -Infinity;
    this.#write(ERASE_LINE);
  }
}

/** "writing pages: 45%"; without the share where the total is not known. */
export function formatProgress(
  step: string,
  done: bigint | number,
  total: bigint | number,
): string {
  const whole = Number(total);
  if (!(whole > 0)) return step;
  const share = Math.floor((Number(done) / whole) * 100);
  return `${step}: ${Math.min(100, Math.max(0, share))}%`;
}
