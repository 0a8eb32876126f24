/**
 * What ckpt opens or makes itself before the first process exists: kernel
 * objects that are each one open file, which the processes are given.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { encodeText } from "../ffi/text.ts";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { namespacePath } from "../files/namespaces.ts";
import type { MadeFile } from "../ghost/make.ts";
import type { TreeImages } from "./task_images.ts";

type Images = Pick<TreeImages, "set" | "files" | "open">;

/** What cannot be opened or made here. */
export function ownObjectProblems({ set, files }: Images): Reason[] {
  return [...files.values()].flatMap(({ id, nsf }) =>
    nsf === undefined ||
      namespacePath(nsf, set.inventory.root_ids) !== undefined
      ? []
      : [{
        object: `files.img, id ${id}`,
        why: "it is a namespace that the program was not in, which is not " +
          "supported",
      }]
  );
}

export class OwnObjects implements Disposable {
  /** What stands for each, by the id of its file. */
  readonly byFile = new Map<number, MadeFile>();

  private constructor() {}

  /** @throws CkptError naming what could not be opened */
  static make(images: Images): OwnObjects {
    const made = new OwnObjects();
    try {
      for (const { id, nsf } of images.files.values()) {
        if (nsf === undefined || !images.open.has(id)) continue;
        const path = namespacePath(nsf, images.set.inventory.root_ids)!;
        const fd = attempt(path, () => open(encodeText(path), O.RDONLY));
        made.byFile.set(id, { fd, reopen: true });
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.byFile.values()) close(fd);
    this.byFile.clear();
  }
}

function attempt<T>(object: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "making kernel objects", [{
      object,
      why: error.message,
    }], { cause: error });
  }
}
