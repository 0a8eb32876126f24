/**
 * Paths of Unix sockets: which the file of one is to have, and where it is bound
 * before it has them.
 */
import type { UnixSocketImage } from "./socket_images.ts";
import { isPath, pathOf } from "./unix_socket.ts";

/** Whether nothing of the path of a bound one is left afterwards. */
export function losesPath({ entry, extension }: UnixSocketImage): boolean {
  return isPath(entry.name) && entry.deleted === true &&
    extension.other_names.length === 0;
}

/** The names that the file of a bound one is to have. */
export function namesOf({ entry, extension }: UnixSocketImage): string[] {
  const { name, name_dir, deleted } = entry;
  const path = pathOf(name);
  const whole = path.startsWith("/") ? path : `${name_dir ?? ""}/${path}`;
  return [...deleted ? [] : [whole], ...extension.other_names];
}

/**
 * Whether one is bound elsewhere than at its name: that leads to another file
 * or nowhere, or who binds it may be in another mount namespace.
 *
 * @param isSplit whether the tree is in several
 */
export function isElsewhere(image: UnixSocketImage, isSplit: boolean): boolean {
  const { name, deleted } = image.entry;
  return isPath(name) && (isSplit || deleted === true) &&
    namesOf(image).length > 0;
}

/** Whether processes are in different mount namespaces. */
export function isSplit(
  processes: readonly { readonly ids: { readonly mnt_ns_id?: number } }[],
): boolean {
  return new Set(processes.map(({ ids }) => ids.mnt_ns_id ?? 0)).size > 1;
}

/**
 * What a path goes through where there is nothing else, from the root.
 *
 * @returns its directories, each after the one it is in, and its end; relative,
 * without dots
 */
export function wayThrough(
  path: string,
): { directories: string[]; file: string } {
  const directories = new Set<string>();
  const parts: string[] = [];
  const names = path.split("/").filter((part) => part !== "" && part !== ".");
  for (const [i, part] of names.entries()) {
    if (part === "..") parts.pop();
    else parts.push(part);
    if (i < names.length - 1 && parts.length > 0) {
      directories.add(parts.join("/"));
    }
  }
  return { directories: [...directories], file: parts.join("/") };
}

/**
 * Whether each process of a tree has its root directory for itself: only then
 * it may have another one for a moment, and what becomes of a path that is soon
 * to be gone is nobody's business.
 */
export function canBindAside(
  processes: readonly { readonly ids: { readonly fs_id?: number } }[],
): boolean {
  const directories = processes.flatMap(({ ids: { fs_id } }) => fs_id ?? []);
  return new Set(directories).size === directories.length;
}
