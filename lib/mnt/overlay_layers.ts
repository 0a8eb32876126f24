/**
 * The directories that an overlay is made of. Its options only tell what was
 * said when it was mounted: paths may have been relative, and be renamed or
 * covered since. The kernel itself knows the directories (struct ovl_fs of
 * fs/overlayfs/ovl_entry.h).
 */
import {
  END,
  type FieldOffsets,
  fieldOffsets,
  withModule,
} from "../ffi/btf.ts";
import { KernelMemory } from "../ffi/kernel_memory.ts";
import { SyscallError } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { statx } from "../ghost/calls.ts";
import { type FileHandle, handleAt } from "../ghost/handles.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import {
  deviceText,
  isWithin,
  joinPath,
  type Mount,
  mountOf,
  relativePath,
} from "./mount.ts";

/** A directory by its superblock, whatever is mounted where. */
export interface Place {
  /** As lib/mnt/mount.ts has it. */
  readonly device: number;
  readonly inode: bigint;
  /** From the root of its superblock. */
  readonly path: string;
}

export interface OverlayLayers {
  readonly upper: Place | undefined;
  /** What the option workdir named: overlayfs works in "work" below it. */
  readonly work: Place | undefined;
  /** The topmost first. */
  readonly lower: readonly Place[];
  /** Those of which only data are used, after the others. */
  readonly data: readonly Place[];
}

export type LayerRole = "upper" | "work" | "lower" | "data";

/** In the stead of the id of a mount: ckpt's own namespace shows the layer. */
export const OUTSIDE = 0;

/** A layer by a mount that shows it. */
export interface Layer {
  readonly role: LayerRole;
  /** The id of a mount of the tree, or {@link OUTSIDE}. */
  readonly mount: number;
  /** From the root of that mount, "" for that itself; a path of the outside. */
  readonly path: string;
  /** What the directory is recognised by, where it is not made anew. */
  readonly handle?: FileHandle;
  /** Only an option of the overlay says so. */
  readonly isTrusted?: boolean;
}

/** What is known of an overlay: its layers, or why they are not known. */
export type FoundLayers =
  | { readonly layers: readonly Layer[] }
  | { readonly why: string; readonly remedy?: string };

/** Of a mount namespace: its mounts, and how ckpt gets at its paths. */
export interface Namespace {
  readonly mounts: readonly MountInfo[];
  readonly prefix: string;
}

/**
 * What an overlay is made of, by the mounts of a tree, and by ckpt's own.
 *
 * @param fd of its root
 * @param host ckpt's own mounts
 */
export function readLayers(
  fd: number,
  namespaces: readonly Namespace[],
  host: readonly MountInfo[],
): FoundLayers {
  let found: OverlayLayers;
  try {
    using reader = new OverlayReader();
    found = reader.read(fd);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return {
      why: "its layers are only known to the kernel, whose memory ckpt may " +
        `not read (bpf(2), /sys/kernel/btf): ${error.message}`,
    };
  }
  const { upper, work, lower, data } = found;
  const wanted: (readonly [LayerRole, Place | undefined])[] = [
    ["upper", upper],
    ["work", work],
    ...lower.map((place) => ["lower", place] as const),
    ...data.map((place) => ["data", place] as const),
  ];
  const layers: Layer[] = [];
  for (const [role, place] of wanted) {
    if (place === undefined) continue;
    const layer = findLayer(role, place, namespaces) ??
      findOutside(role, place, host);
    if (layer === undefined) {
      return {
        why: `its ${role} layer, ${place.path} of the file system ` +
          `${deviceText(place.device)}, is in no mount of the program, nor ` +
          "in one of ckpt's own",
      };
    }
    layers.push(layer);
  }
  return { layers };
}

function findLayer(
  role: LayerRole,
  place: Place,
  namespaces: readonly Namespace[],
): Layer | undefined {
  for (const { mounts, prefix } of namespaces) {
    const found = findPlace(
      place,
      mounts.map((info) => mountOf(info, 0)),
      (path) => inodeAt(prefix + path),
    );
    if (found === undefined) continue;
    const { mount, path } = found;
    return {
      role,
      mount: mount.id,
      path: relativePath(path, mount.point),
      handle: handleAt(`${prefix}${path}/.`),
    };
  }
  return undefined;
}

function findOutside(
  role: LayerRole,
  place: Place,
  host: readonly MountInfo[],
): Layer | undefined {
  const found = findPlace(
    place,
    host.map((info) => mountOf(info, OUTSIDE)),
    inodeAt,
  );
  return found && {
    role,
    mount: OUTSIDE,
    path: found.path,
    handle: handleAt(`${found.path}/.`),
  };
}

function inodeAt(
  path: string,
): { inode: bigint; mount: number } | undefined {
  try {
    const { inode, mountId } = statx(path);
    return { inode, mount: Number(mountId) };
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** Deeper is no directory of any file system. */
const DEEPEST = 2048;

const WANTED = {
  task_struct: ["files"],
  files_struct: ["fdt"],
  fdtable: ["fd"],
  file: ["f_inode"],
  inode: ["i_sb", "i_ino"],
  super_block: ["s_fs_info", "s_dev"],
  ovl_fs: ["numlayer", "numdatalayer", "layers", "workbasedir"],
  ovl_layer: ["mnt", END],
  vfsmount: ["mnt_root"],
  dentry: ["d_parent", "d_name", "d_sb", "d_inode"],
  qstr: ["len", "name"],
} as const;

export class OverlayReader implements Disposable {
  readonly #offsets: Record<keyof typeof WANTED, FieldOffsets>;
  readonly #memory: KernelMemory;

  /**
   * @throws SyscallError or UnknownField where the kernel does not let itself be
   * read
   */
  constructor() {
    this.#offsets = fieldOffsets(WANTED, withModule("overlay"));
    this.#memory = KernelMemory.open();
  }

  /** Of a field, in bytes. */
  #at<S extends keyof typeof WANTED>(
    structure: S,
    field: typeof WANTED[S][number],
  ): number {
    return this.#offsets[structure].get(field)! / 8;
  }

  /** @param fd of any file of the overlay, of ckpt's main thread */
  read(fd: number): OverlayLayers {
    const slots = this.#follow(
      this.#memory.ownTask(),
      this.#at("task_struct", "files"),
      this.#at("files_struct", "fdt"),
      this.#at("fdtable", "fd"),
    );
    const fs = this.#follow(
      slots,
      8 * fd,
      this.#at("file", "f_inode"),
      this.#at("inode", "i_sb"),
      this.#at("super_block", "s_fs_info"),
    );
    const count = this.#number(fs, this.#at("ovl_fs", "numlayer"));
    const dataCount = this.#number(fs, this.#at("ovl_fs", "numdatalayer"));
    const layers = this.#follow(fs, this.#at("ovl_fs", "layers"));
    const places = Array.from({ length: count }, (_, i) => {
      const mount = this.#follow(
        layers,
        this.#at("ovl_layer", END) * i + this.#at("ovl_layer", "mnt"),
      );
      return mount === 0n
        ? undefined
        : this.#place(this.#follow(mount, this.#at("vfsmount", "mnt_root")));
    });
    // The first is the upper one, which not every overlay has.
    const lower = places.slice(1).map((place) => place!);
    const work = this.#follow(fs, this.#at("ovl_fs", "workbasedir"));
    return {
      upper: places[0],
      work: work === 0n ? undefined : this.#place(work),
      lower: lower.slice(0, lower.length - dataCount),
      data: lower.slice(lower.length - dataCount),
    };
  }

  /** Reads one pointer after the other, each at an offset of the last. */
  #follow(address: bigint, ...offsets: readonly number[]): bigint {
    return offsets.reduce(
      (at, offset) => this.#memory.pointer(at + BigInt(offset)),
      address,
    );
  }

  #number(address: bigint, offset: number): number {
    const bytes = this.#memory.read(address + BigInt(offset), 4);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  #place(dentry: bigint): Place {
    const inode = this.#follow(dentry, this.#at("dentry", "d_inode"));
    const names: string[] = [];
    for (let at = dentry; names.length < DEEPEST;) {
      const parent = this.#follow(at, this.#at("dentry", "d_parent"));
      if (parent === at) break;
      names.unshift(this.#name(at));
      at = parent;
    }
    return {
      device: this.#number(
        this.#follow(dentry, this.#at("dentry", "d_sb")),
        this.#at("super_block", "s_dev"),
      ),
      inode: this.#follow(inode, this.#at("inode", "i_ino")),
      path: `/${names.join("/")}`,
    };
  }

  #name(dentry: bigint): string {
    const at = dentry + BigInt(this.#at("dentry", "d_name"));
    const length = this.#number(at, this.#at("qstr", "len"));
    const text = this.#follow(at, this.#at("qstr", "name"));
    return decodeText(this.#memory.read(text, length));
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}

/**
 * Where a directory is found among mounts, from the root of their namespace;
 * the last mounted first.
 *
 * @param inodeAt the inode and device (mount) that a path leads to, so that
 * nothing is found that something else covers
 */
export function findPlace(
  { device, inode, path }: Place,
  mounts: readonly Mount[],
  inodeAt: (path: string) => { inode: bigint; mount: number } | undefined,
): { readonly mount: Mount; readonly path: string } | undefined {
  for (const mount of mounts.toReversed()) {
    if (mount.device !== device || !isWithin(path, mount.root)) continue;
    const here = joinPath(mount.point, relativePath(path, mount.root));
    const found = inodeAt(here);
    if (found?.inode === inode && found.mount === mount.id) {
      return { mount, path: here };
    }
  }
  return undefined;
}
