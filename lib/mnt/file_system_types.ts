/**
 * What is known of types of file systems: how a superblock of each comes back.
 */
import { fstype } from "../image/schema.gen.ts";

export interface FileSystemType {
  /** CRIU's number for it. */
  readonly number: number;
  /**
   * What mounting it afresh gives: a superblock of its own; the one that
   * belongs to a namespace of the caller; or the only one of the kernel, which
   * options would change for everybody.
   */
  readonly fresh: "own" | "namespace" | "kernel";
  /** Whether processes keep files in it, which a fresh one has not. */
  readonly hasContent: boolean;
}

const own = (number: number, hasContent = false) =>
  ({ number, fresh: "own", hasContent }) as const;
const ofNamespace = (number: number) =>
  ({ number, fresh: "namespace", hasContent: false }) as const;
const ofKernel = (number: number) =>
  ({ number, fresh: "kernel", hasContent: false }) as const;

/** Those that can be mounted afresh. AUTO: CRIU restores it when told to. */
const TYPES: ReadonlyMap<string, FileSystemType> = new Map<
  string,
  FileSystemType
>([
  // A superblock for each mount since Linux 5.8; they all show the same.
  ["proc", own(fstype.PROC)],
  ["sysfs", ofNamespace(fstype.SYSFS)],
  ["mqueue", ofNamespace(fstype.MQUEUE)],
  ["cgroup", ofNamespace(fstype.CGROUP)],
  ["cgroup2", ofNamespace(fstype.CGROUP2)],
  ["binfmt_misc", ofNamespace(fstype.BINFMT_MISC)],
  ["devtmpfs", ofKernel(fstype.DEVTMPFS)],
  ["pstore", ofKernel(fstype.PSTORE)],
  ["securityfs", ofKernel(fstype.SECURITYFS)],
  ["fusectl", ofKernel(fstype.FUSECTL)],
  ["debugfs", ofKernel(fstype.DEBUGFS)],
  ["tracefs", ofKernel(fstype.TRACEFS)],
  ["configfs", ofKernel(fstype.AUTO)],
  ["efivarfs", ofKernel(fstype.AUTO)],
  ["tmpfs", own(fstype.TMPFS, true)],
  ["ramfs", own(fstype.AUTO, true)],
  ["hugetlbfs", own(fstype.AUTO, true)],
  ["bpf", own(fstype.AUTO, true)],
  // What is in it are the terminals of the tree, which come back by themselves.
  ["devpts", own(fstype.DEVPTS)],
]);

/** @returns undefined for one that ckpt does not mount by itself */
export function freshType(name: string): FileSystemType | undefined {
  return TYPES.get(name);
}

/** Numbers for types that are not mounted by their name alone. */
const OTHER_NUMBERS: ReadonlyMap<string, number> = new Map([
  ["overlay", fstype.OVERLAYFS],
  ["autofs", fstype.AUTOFS],
  ["fuse", fstype.FUSE],
  ["aufs", fstype.AUFS],
]);

/** mnt_entry.fstype of a type by its name ("fuse.sshfs"). */
export function typeNumber(name: string): number {
  const [family] = name.split(".");
  return TYPES.get(name)?.number ?? OTHER_NUMBERS.get(family) ??
    fstype.UNSUPPORTED;
}

/** The name of a type by CRIU's number; AUTO has it in mnt_entry.fsname. */
export function typeName(number: number): string | undefined {
  for (const [name, type] of TYPES) {
    if (type.number === number && number !== fstype.AUTO) return name;
  }
  for (const [name, other] of OTHER_NUMBERS) {
    if (other === number) return name;
  }
  return undefined;
}
