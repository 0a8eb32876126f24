/** Reads all mounts of a namespace. */
import { close, O, open, pread } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { type MountInfo, parseMountInfo } from "../proc/mountinfo.ts";
import { changeRoot, openAt } from "./calls.ts";
import type { OwnNamespace } from "./own_namespace.ts";

/**
 * What a task sees of its namespace ends at its root directory, so ckpt's main
 * thread goes there itself.
 *
 * @param namespace descriptor of it (nsfs)
 * @param root descriptor of the directory to look from; that of the namespace,
 * or what is mounted on it, unless given
 */
export function readNamespace(
  own: OwnNamespace,
  { namespace, root }: { readonly namespace: number; readonly root?: number },
): MountInfo[] {
  const self = open("/proc/thread-self", O.PATH | O.DIRECTORY);
  const mountinfo = own.within(namespace, () => {
    if (root !== undefined) changeRoot(root);
    // Whose mounts it tells is settled when it is opened.
    return openAt(self, "mountinfo", O.RDONLY);
  });
  try {
    return parseMountInfo(readAll(mountinfo));
  } finally {
    close(mountinfo);
    close(self);
  }
}

const PART = 256 * 1024;

function readAll(fd: number): string {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (;;) {
    const part = new Uint8Array(PART);
    const n = pread(fd, part, BigInt(length));
    if (n === 0) break;
    parts.push(part.subarray(0, n));
    length += n;
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return decodeText(all);
}
