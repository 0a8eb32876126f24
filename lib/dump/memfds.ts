/** The memfds of a tree, each once, open or only mapped, with their content. */
import { CkptError, EXIT } from "../error.ts";
import {
  close,
  type FileStatus,
  O,
  open,
  readLink,
  stat,
  syscall,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import type { SeenDescriptor } from "../files/descriptors.ts";
import { dumpMemfdObject, memfdName, memfdPageSize } from "../files/memfd.ts";
import { sorted } from "../files/sorted_descriptors.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { pagesName } from "../image/kinds.ts";
import type { memfd_inode_entry } from "../image/schema.gen.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import type { Vma } from "../mm/vma.ts";
import { saveObject, type SharedContent } from "./shared_memory.ts";

/** Their numbers in the images, by their inodes. */
export type MemfdNumbers = ReadonlyMap<bigint, number>;

export interface SavedMemfds {
  readonly numbers: MemfdNumbers;
  readonly entries: readonly memfd_inode_entry[];
  readonly contents: readonly SharedContent[];
}

export const NO_MEMFDS: SavedMemfds = {
  numbers: new Map(),
  entries: [],
  contents: [],
};

const F_GET_SEALS = 1034n;
/** The name under which CRIU stores shared anonymous memory. */
const SHARED_MEMORY = "/dev/zero";

interface Process {
  readonly tid: number;
  readonly descriptors: readonly SeenDescriptor[];
  readonly vmas: { readonly vmas: readonly Vma[] };
}

/**
 * @param processes of one tree, all stopped
 * @param taken numbers of shared memory that are in use
 * @param firstPagesId number of the first page image that is free
 */
export async function saveMemfds(
  processes: readonly Process[],
  taken: ReadonlySet<bigint>,
  firstPagesId: number,
  writer: ImageWriter,
  counters: PageCounters,
): Promise<SavedMemfds> {
  const numbers = new Map<bigint, number>();
  const used = new Set(taken);
  const entries: memfd_inode_entry[] = [];
  const contents: SharedContent[] = [];
  for (const { inode, path, seen } of memfdsOf(processes)) {
    if (numbers.has(inode)) continue;
    const object = open(path, O.RDONLY);
    try {
      const { name, status, seals, pageSize } = look(object, path, seen);
      // What is only mapped may be shared memory that CRIU has restored.
      if (name === SHARED_MEMORY && seen !== undefined) {
        refuse(path, "the images know shared anonymous memory by this name");
      }
      // memfd.img has 32 bits for it.
      let id = BigInt.asUintN(32, inode);
      while (used.has(id)) id = BigInt.asUintN(32, id + 1n);
      used.add(id);
      numbers.set(inode, Number(id));
      entries.push(dumpMemfdObject(Number(id), name, status, seals, pageSize));
      if (status.size === 0n) continue;
      const pagesId = firstPagesId + contents.length;
      const image = writer.createRaw(pagesName(pagesId));
      const pages = await saveObject(object, status.size, image, counters);
      contents.push({ id, pagesId, pages });
    } finally {
      close(object);
    }
  }
  return { numbers, entries, contents };
}

/** A use of a memfd. */
interface MemfdUse {
  readonly inode: bigint;
  /** Leads to it. */
  readonly path: string;
  /** A descriptor that was looked at; undefined: it is mapped. */
  readonly seen?: Pick<SeenDescriptor, "link" | "status">;
}

function memfdsOf(processes: readonly Process[]): MemfdUse[] {
  return processes.flatMap(({ tid, descriptors, vmas }) => [
    ...sorted(descriptors).named.filter(({ link }) =>
      memfdName(link) !== undefined
    ).map(({ fd, link, status }) => ({
      inode: status.ino,
      path: `/proc/${tid}/fd/${fd}`,
      seen: { link, status },
    })),
    ...vmas.vmas.filter(({ memfd }) => memfd).map(({ inode, link }) => ({
      inode,
      path: `/proc/${tid}/map_files/${link}`,
    })),
  ]);
}

function refuse(object: string, why: string): never {
  throw new CkptError(EXIT.refused, "saving a memfd", [{ object, why }]);
}

function look(
  object: number,
  path: string,
  seen: MemfdUse["seen"],
): { name: string; status: FileStatus; seals: number; pageSize: number } {
  const { link, status } = seen ??
    { link: decodeText(readLink(path)), status: stat(object) };
  const name = memfdName(link);
  const pageSize = memfdPageSize(path, status);
  if (name === undefined || pageSize === undefined) {
    return refuse(path, "it is called like a memfd, but is none");
  }
  const seals = Number(syscall("fcntl", BigInt(object), F_GET_SEALS));
  return { name, status, seals, pageSize };
}
