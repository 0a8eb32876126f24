/** The program that is dumped and restored (one of programs), seen through the page it shares. */

import type { Host } from "./host.ts";

/** What is started, and who answers in it. */
export interface Subject {
  /** Its source in `programs`, and its arguments but the first, which is the page. */
  program:
    | "load"
    | "family"
    | "ghosts"
    | "descriptors"
    | "connections"
    | "mounts";
  args: number[];
  /** Whether its second argument is a directory for its files, on the file system of the images. */
  makesFiles?: boolean;
  /** Whether the directory of its page is its root. */
  isRoot?: boolean;
  /** For the dump; ckpt and CRIU take the same. */
  options?: string[];
  /** For the dump, of CRIU only. */
  criuOptions?: string[];
  /** For the restore. */
  restoreOptions?: string[];
  /** Threads of its first process. */
  threads: number;
  /** Threads or processes that must answer a question. */
  answers: number;
}

/** Order of the 64-bit words, as in `struct page` of programs/load.c. */
const WORD = {
  ready: 0,
  loops: 1,
  gap: 2,
  paused: 3,
  pauses: 4,
  question: 6,
  answer: 7,
  wrong: 8,
  threads: 9,
} as const;
const WORDS = 10;
const PAGE_SIZE = 4096;
/** A program that does not answer in this time, in milliseconds, does not run. */
const PATIENCE = 20_000;

export const sleep = (milliseconds: number) =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Load {
  #question = 0n;

  private constructor(
    readonly pid: number,
    readonly subject: Subject,
    readonly page: string,
  ) {}

  /** Starts one and waits until its memory is filled and its threads wait. */
  static async start(
    host: Host,
    executable: string,
    directory: string,
    images: string,
    subject: Subject,
  ): Promise<Load> {
    const page = `${directory}/page`;
    Deno.writeFileSync(page, new Uint8Array(PAGE_SIZE));
    const pid = await host.program(`${directory}/load.log`, [
      executable,
      page,
      ...(subject.makesFiles ? [images] : []),
      ...subject.args.map(String),
    ]);
    const load = new Load(pid, subject, page);
    await load.#until("it is ready", (words) => words[WORD.ready] === 1n);
    await load.check();
    return load;
  }

  /** Forgets the gaps seen so far. */
  forget(): void {
    for (const word of [WORD.gap, WORD.paused, WORD.pauses]) {
      this.#write(word, 0n);
    }
  }

  /** Milliseconds: the largest gap since `forget`, and the sum of all above 0.1 ms. */
  gaps(): { largest: number; sum: number; count: number } {
    const words = this.#read();
    return {
      largest: Number(words[WORD.gap]) / 1e6,
      sum: Number(words[WORD.paused]) / 1e6,
      count: Number(words[WORD.pauses]),
    };
  }

  /**
   * Has the program check every word of its memory and ask every thread or process.
   * @throws Error when it does not run, or anything is not as it should be
   */
  async check(): Promise<void> {
    const before = this.#read()[WORD.loops];
    this.#write(WORD.question, ++this.#question);
    const words = await this.#until(
      "it has checked itself",
      (words) =>
        words[WORD.answer] === this.#question && words[WORD.loops] > before,
    );
    const answers = Number(words[WORD.threads]);
    const kernel = [...Deno.readDirSync(`/proc/${this.pid}/task`)].length;
    if (
      words[WORD.wrong] !== 0n || answers !== this.subject.answers ||
      kernel !== this.subject.threads
    ) {
      throw new Error(
        `program ${this.pid}: ${words[WORD.wrong]} words are wrong, ` +
          `${answers} of ${this.subject.answers} answered right, ` +
          `the kernel has ${kernel} threads of the first process`,
      );
    }
  }

  /** Memory that all its processes use, bytes: what several share is counted once (Pss of smaps_rollup). */
  memory(): number {
    const children = Deno.readTextFileSync(
      `/proc/${this.pid}/task/${this.pid}/children`,
    );
    return [`${this.pid}`, ...children.split(" ").filter((pid) => pid !== "")]
      .map((pid) => {
        const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
        return Number(/^Pss: +(\d+) kB$/m.exec(text)?.[1]) * 1024;
      }).reduce((sum, bytes) => sum + bytes);
  }

  async #until(
    what: string,
    done: (words: BigUint64Array) => boolean,
  ): Promise<BigUint64Array> {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const words = this.#read();
      if (done(words)) return words;
      if (Date.now() > end) {
        throw new Error(`program ${this.pid}: gave up waiting until ${what}`);
      }
      await sleep(5);
    }
  }

  #read(): BigUint64Array {
    using file = Deno.openSync(this.page);
    const words = new BigUint64Array(WORDS);
    file.readSync(new Uint8Array(words.buffer));
    return words;
  }

  #write(word: number, value: bigint): void {
    using file = Deno.openSync(this.page, { write: true });
    file.seekSync(word * 8, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(BigUint64Array.of(value).buffer));
  }
}
