/**
 * The descriptors of a process by what they are, each open file description
 * once: a dump seeks a dozen kinds, each among few instead of thousands.
 */
import { type FileStatus, S_IF } from "../ffi/syscall.ts";

/** A descriptor, as far as it matters here. */
interface Seen {
  readonly link: string;
  readonly status: Pick<FileStatus, "mode">;
  /** One that was seen before and has the same open file description. */
  readonly sameAs?: object | undefined;
}

/** All but those that were seen before. */
export interface SortedDescriptors<T> {
  readonly sockets: readonly T[];
  /** Pipes and fifos. */
  readonly pipes: readonly T[];
  /** Devices that are read as characters, such as terminals. */
  readonly devices: readonly T[];
  /** Of these and of others: what has a path, or what looks like one (memfds). */
  readonly named: readonly T[];
  /** All others, with a link such as "anon_inode:[eventfd]". */
  readonly unnamed: readonly T[];
}

/** @param descriptors that do not change any more: they are sorted once */
export function sorted<T extends Seen>(
  descriptors: readonly T[],
): SortedDescriptors<T> {
  let known = done.get(descriptors) as SortedDescriptors<T> | undefined;
  if (known === undefined) {
    known = sort(descriptors);
    done.set(descriptors, known);
  }
  return known;
}

const done = new WeakMap<readonly unknown[], SortedDescriptors<unknown>>();

function sort<T extends Seen>(
  descriptors: readonly T[],
): SortedDescriptors<T> {
  const sockets: T[] = [];
  const pipes: T[] = [];
  const devices: T[] = [];
  const named: T[] = [];
  const unnamed: T[] = [];
  for (const seen of descriptors) {
    if (seen.sameAs !== undefined) continue;
    const isNamed = seen.link[0] === "/";
    if (isNamed) named.push(seen);
    const type = seen.status.mode & S_IF.MT;
    if (type === S_IF.SOCK) sockets.push(seen);
    else if (type === S_IF.IFO) pipes.push(seen);
    else if (type === S_IF.CHR) devices.push(seen);
    else if (!isNamed) unnamed.push(seen);
  }
  return { sockets, pipes, devices, named, unnamed };
}
