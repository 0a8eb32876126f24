/**
 * The mount namespace of ckpt's main thread, which it leaves for a moment to
 * work in others. Everything in between is synchronous: other code of ckpt never
 * runs in another namespace than its own.
 */
import { AT_FDCWD, close, O, open } from "../ffi/syscall.ts";
import {
  changeDirectory,
  changeRoot,
  enterNamespace,
  leaveSharedDirectories,
  openAt,
} from "./calls.ts";

export class OwnNamespace implements Disposable {
  readonly #namespaces: number;
  readonly #own: number;
  /** Descriptor of ckpt's own root directory. */
  readonly root: number;
  readonly #directory: number;

  constructor() {
    leaveSharedDirectories();
    this.#namespaces = open("/proc/thread-self/ns", O.PATH | O.DIRECTORY);
    this.#own = this.current();
    this.root = open("/", O.PATH | O.DIRECTORY);
    this.#directory = openAt(AT_FDCWD, ".", O.PATH | O.DIRECTORY);
  }

  /** A descriptor of the namespace that the thread is in now. */
  current(): number {
    return openAt(this.#namespaces, "mnt", O.RDONLY);
  }

  /** Comes back, wherever it was. */
  enter(): void {
    enterNamespace(this.#own);
    changeRoot(this.root);
    changeDirectory(this.#directory);
  }

  /** Does something in another namespace. */
  within<T>(namespace: number, act: () => T): T {
    enterNamespace(namespace);
    try {
      return act();
    } finally {
      this.enter();
    }
  }

  [Symbol.dispose](): void {
    for (
      const fd of [this.#namespaces, this.#own, this.root, this.#directory]
    ) close(fd);
  }
}
