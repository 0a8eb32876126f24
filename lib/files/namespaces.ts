/**
 * Descriptors of namespaces (namespaces(7), nsfs): `ns_file_entry`. Those that
 * the program is in, and so ckpt, are opened again; nobody else keeps another
 * one alive.
 */
import { ENOENT } from "../ffi/errno.ts";
import { readLink, SyscallError } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import type {
  ns_file_entry,
  task_kobj_ids_entry,
} from "../image/schema.gen.ts";
import { KINDS } from "./kinds.ts";

/** Their names in /proc/PID/ns, with the bits of clone(2). */
const CLONE_NEW = {
  time: 0x80,
  mnt: 0x20000,
  cgroup: 0x2000000,
  uts: 0x4000000,
  ipc: 0x8000000,
  user: 0x10000000,
  pid: 0x20000000,
  net: 0x40000000,
} as const;

export type NamespaceType = keyof typeof CLONE_NEW;

/** Numbers for namespaces in the images. */
export type NamespaceIds = Pick<task_kobj_ids_entry, `${NamespaceType}_ns_id`>;

/** @param link as /proc/PID/fd/N shows it */
export function namespaceType(link: string): NamespaceType | undefined {
  const type = KINDS.namespace.link.exec(link)?.[1];
  return type as NamespaceType | undefined;
}

/** Why a descriptor of a namespace cannot be saved; undefined: it can. */
export function namespaceProblem(
  link: string,
  ownLink: (type: NamespaceType) => string | undefined = readOwnLink,
): { why: string; remedy: string } | undefined {
  const own = ownLink(namespaceType(link)!);
  if (link === own) return undefined;
  return {
    why: `it is a namespace that the program is not in (it is in ${own}), ` +
      "which is not supported",
    remedy: "let the program close it",
  };
}

function readOwnLink(type: NamespaceType): string | undefined {
  try {
    return decodeText(readLink(ownPath(type)));
  } catch (error) {
    // A kernel without this kind.
    if (error instanceof SyscallError && error.errno === ENOENT) {
      return undefined;
    }
    throw error;
  }
}

function ownPath(type: NamespaceType): string {
  return `/proc/self/ns/${type}`;
}

/** @param ids of the program's namespaces */
export function dumpNamespace(
  id: number,
  link: string,
  flags: number,
  ids: NamespaceIds,
): ns_file_entry {
  const type = namespaceType(link)!;
  return {
    id,
    ns_id: ids[`${type}_ns_id`]!,
    ns_cflag: CLONE_NEW[type],
    flags,
  };
}

/** What ckpt opens for it; undefined: it is of another namespace. */
export function namespacePath(
  { ns_id, ns_cflag }: ns_file_entry,
  ids: NamespaceIds | undefined,
): string | undefined {
  const type = Object.keys(CLONE_NEW).find((name) =>
    CLONE_NEW[name as NamespaceType] === ns_cflag
  ) as NamespaceType | undefined;
  return type !== undefined && ids?.[`${type}_ns_id`] === ns_id
    ? ownPath(type)
    : undefined;
}
