/** How agents get into mount namespaces that ckpt has made for them. */
import type { Program } from "../ffi/program.ts";
import type { TreeImages } from "./task_images.ts";

/** What agents need of it, as descriptors of ckpt's. */
export interface MountServices {
  /** A proc file system. */
  readonly proc: number;
  /** The namespace of ckpt itself, and its root directory. */
  readonly own: number;
  readonly outside: number;
  /** By the numbers of namespaces. */
  readonly namespaces: ReadonlyMap<
    number,
    { readonly namespace: number; readonly root: number }
  >;
}

/** How a file is reached that its path does not lead an agent to. */
export interface FileRoot {
  /** Descriptor of ckpt's. */
  readonly fd: number;
  /** "", or the way from there: "/a/b". */
  readonly rest: string;
}

/** Whether any process was in another mount namespace than the dumper. */
export function hasOwnMounts(
  { set, processes }: Pick<TreeImages, "set" | "processes">,
): boolean {
  const own = set.inventory.root_ids?.mnt_ns_id ?? 0;
  return processes.some(({ ids }) => (ids.mnt_ns_id ?? 0) !== own);
}

const CLONE_NEWNS = 0x20000;

/**
 * Lets an agent go to another mount namespace, and to its root: setns(2) goes
 * to what is mounted over that.
 */
export function enterMounts(
  program: Program,
  namespace: number,
  root: number,
): void {
  const purpose = "entering the mount namespace";
  program.call("setns", [namespace, CLONE_NEWNS], purpose);
  program.call("fchdir", [root], purpose);
  program.call("chroot", [program.text(".")], purpose);
}
