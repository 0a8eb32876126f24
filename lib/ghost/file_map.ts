/**
 * What is known of files: by which inode they are, and by what the links to
 * them in /proc show. For thousands of them, without a text for each as key.
 */
import type { FileStatus } from "../ffi/syscall.ts";

/** Which file it is. */
export type Inode = Pick<FileStatus, "dev" | "ino">;

interface Entry<T> {
  readonly dev: bigint;
  readonly link: string;
  value: T;
  /** Of the same number. */
  readonly next: Entry<T> | undefined;
}

export class FileMap<T> {
  readonly #byNumber = new Map<bigint, Entry<T>>();
  readonly #entries: Entry<T>[] = [];

  /** @param link the same for all links where it does not matter */
  get(inode: Inode, link = ""): T | undefined {
    return this.#find(inode, link)?.value;
  }

  set(inode: Inode, value: T, link = ""): void {
    const known = this.#find(inode, link);
    if (known !== undefined) {
      known.value = value;
      return;
    }
    const { dev, ino } = inode;
    const entry = { dev, link, value, next: this.#byNumber.get(ino) };
    this.#byNumber.set(ino, entry);
    this.#entries.push(entry);
  }

  get size(): number {
    return this.#entries.length;
  }

  /** In the order in which their files were first set. */
  values(): T[] {
    return this.#entries.map(({ value }) => value);
  }

  #find({ dev, ino }: Inode, link: string): Entry<T> | undefined {
    let entry = this.#byNumber.get(ino);
    while (entry !== undefined && (entry.dev !== dev || entry.link !== link)) {
      entry = entry.next;
    }
    return entry;
  }
}
