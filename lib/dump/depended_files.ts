/**
 * The files that an image depends on: those it does not hold itself, but names
 * by a path. Each path once, with all that the tree needs of it.
 */
import { type FileStatus, O, S_IF, SyscallError } from "../ffi/syscall.ts";
import { hasPath } from "../files/descriptors.ts";
import { sorted } from "../files/sorted_descriptors.ts";
import { fileSystemType } from "../ghost/calls.ts";
import { isOfTheKernel } from "../ghost/fate.ts";
import { fileKey, throughWay, type UsedPath } from "../ghost/files_in_use.ts";
import type { SavedFiles } from "../ghost/save.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import { PROT } from "../proc/maps.ts";
import { mappedFileKey, type Sighting, type UsedFile } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";

export interface DependedFile {
  readonly path: string;
  readonly status: FileStatus;
  /** A program or library that is being executed. */
  readonly executed: boolean;
  /** It is not only written to at its end, as a log is. */
  readonly content: boolean;
  /** Open or mapped for writing. */
  readonly written: boolean;
  /** Where ckpt finds it. */
  readonly at: string;
  /** That is a link of /proc that leads to it. */
  readonly isLink?: boolean;
  /** Of its mount, where that is of a namespace of the tree's own. */
  readonly mountId?: number;
}

type Use = "executed" | "written" | "read";

/**
 * Before it is known what becomes of the files whose path does not lead to
 * them: those are left out.
 */
export function foundFiles(
  { processes, files, namespaces }: TreeSighting,
  external: readonly string[],
): DependedFile[] {
  const lost = new Set(files.lost.map(fileKey));
  const placeOf = (used: UsedPath) => ({
    path: used.link,
    ...lost.has(fileKey(used)) && { remap: { ghost: 0 } },
  });
  return dependedFiles(processes, { placeOf }, external, namespaces);
}

/** Those of them that the image does not hold in a file system of its own. */
export function filesOutside(
  files: readonly DependedFile[],
  external: readonly string[],
  namespaces: SeenNamespaces | undefined,
): DependedFile[] {
  return files.filter(({ mountId }) =>
    mountId === undefined || !namespaces?.isSaved(mountId, external)
  );
}

/** Whether a file is there, and kept by others than the kernel. */
export function isKept(path: string): boolean {
  try {
    return !isOfTheKernel(fileSystemType(path));
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

/**
 * @param external as given by --external: files of the outside
 * @param namespaces where processes have mount namespaces of their own
 */
export function dependedFiles(
  processes: readonly Sighting[],
  saved: Pick<SavedFiles, "placeOf">,
  external: readonly string[],
  namespaces?: SeenNamespaces,
): DependedFile[] {
  const files = new Map<string, DependedFile>();
  const add = (
    used: UsedPath & { at: string; mountId?: number },
    use: Use,
    flags = 0,
  ) => {
    const { path, remap } = saved.placeOf(used);
    if (remap !== undefined && "ghost" in remap) return;
    const name = remap?.link ?? path;
    const logs = (flags & O.APPEND) !== 0 &&
      (flags & O.ACCMODE) === O.WRONLY;
    const regular = (used.status.mode & S_IF.MT) === S_IF.REG;
    const way = used.mountId === undefined
      ? undefined
      : namespaces?.wayIn(used.mountId, used.link, used.at);
    const at = throughWay(way, name);
    const known = files.get(at);
    files.set(at, {
      path: name,
      at,
      ...way !== undefined && {
        isLink: at === way.prefix,
        mountId: used.mountId,
      },
      status: used.status,
      executed: use === "executed" || known?.executed === true,
      content: regular && !logs || known?.content === true,
      written: use === "written" || known?.written === true,
    });
  };
  for (const process of processes) {
    const { exe, cwd, root, mappedFiles, vmas } = process;
    const { tid } = process;
    const usedAs = ({ path: link, ...used }: UsedFile, name: string) => ({
      ...used,
      link,
      at: `/proc/${tid}/${name}`,
    });
    add(usedAs(cwd, "cwd"), "read");
    add(usedAs(root, "root"), "read");
    add(usedAs(exe, "exe"), "executed");
    const executed = new Set(
      vmas.vmas.filter(({ entry }) => (entry.prot & PROT.exec) !== 0)
        .map(mappedFileKey),
    );
    const written = new Set(
      vmas.vmas.filter(({ entry }) => entry.fdflags === O.RDWR)
        .map(mappedFileKey),
    );
    for (const { vma, status, mountId } of mappedFiles) {
      if (status === undefined) continue;
      const key = mappedFileKey(vma);
      const used = {
        link: vma.path!,
        status,
        mountId,
        at: `/proc/${tid}/map_files/${vma.link}`,
      };
      add(used, executed.has(key) ? "executed" : "read");
      if (written.has(key)) add(used, "written");
    }
    for (const seen of sorted(process.descriptors).named) {
      const { link, status, info } = seen;
      const { remap } = saved.placeOf(seen);
      if (remap !== undefined && "ghost" in remap) continue;
      if (
        !hasPath(seen) ||
        external.length > 0 &&
          external.includes(`file[${info.mntId.toString(16)}:${status.ino}]`)
      ) continue;
      const reads = (info.flags & O.ACCMODE) === O.RDONLY ||
        (info.flags & O.PATH) !== 0;
      const at = `/proc/${tid}/fd/${seen.fd}`;
      const used = { link, status, at, mountId: info.mntId };
      add(used, reads ? "read" : "written", info.flags);
    }
  }
  return [...files.values()];
}
