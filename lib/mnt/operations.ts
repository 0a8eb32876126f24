/**
 * What the restore planner tells the executor to do, step by step. Mounts go by
 * their ids in the image; helpers and superblocks that the tree itself has no
 * mount of get further numbers.
 */
import type { FileHandle } from "../ghost/handles.ts";
import { MS } from "./mount.ts";
import type { LayerRole } from "./overlay_layers.ts";

/** The number of the namespace in which mounts are kept to be cloned. */
export const YARD = 0;

/** A layer of an overlay, by the mount that it is cloned or made of. */
export interface MadeLayer {
  readonly role: LayerRole;
  readonly from: number;
  /** From the root of `from`. */
  readonly path: string;
  /** What it has to be, if that is looked at, and what the image calls it. */
  readonly expected?: { readonly handle: FileHandle; readonly path: string };
}

export type Operation =
  /** Mounts a new superblock, or the one of a namespace; nowhere yet. */
  | {
    readonly kind: "create";
    readonly mount: number;
    readonly type: string;
    readonly source: string;
    readonly options: readonly string[];
    /** MS_* of the superblock. */
    readonly superFlags: number;
  }
  /** Mounts an overlay of directories of other mounts; nowhere yet. */
  | {
    readonly kind: "overlay";
    readonly mount: number;
    /** A mount of the image that shows it. */
    readonly of: number;
    readonly source: string;
    /** Those that name layers are of no use any more. */
    readonly options: readonly string[];
    readonly superFlags: number;
    readonly layers: readonly MadeLayer[];
  }
  /** Fills the new superblock with what the image has of it. */
  | {
    readonly kind: "fill";
    readonly mount: number;
    /** mnt_entry.root_dev of the image. */
    readonly device: number;
  }
  /** Makes a superblock read-only, now that it is complete. */
  | { readonly kind: "seal"; readonly mount: number }
  /** Clones, while in ckpt's own namespace, what a path of it leads to. */
  | { readonly kind: "clone"; readonly mount: number; readonly path: string }
  /**
   * Makes a file or directory again that was removed, to be bound. As `mount`
   * goes what leads there.
   */
  | {
    readonly kind: "remake";
    readonly mount: number;
    readonly from: number;
    /** The mount of the image whose archive holds it. */
    readonly of: number;
    /** Where it was, from the root of `from`. */
    readonly path: string;
    /** Whether `from` is of the outside, which has other users. */
    readonly isOutside: boolean;
  }
  /** Removes what was made so: only what has a name can be mounted. */
  | { readonly kind: "remove" }
  /** Puts a mount into the yard, so that others can be cloned from it. */
  | { readonly kind: "keep"; readonly mount: number }
  /** Clones a kept mount, or a part of it. */
  | {
    readonly kind: "bind";
    readonly mount: number;
    readonly from: number;
    /** From the root of `from`. */
    readonly path: string;
  }
  /** Sets the flags of a mount, which is private from here on. */
  | {
    readonly kind: "attributes";
    readonly mount: number;
    /** MS_* */
    readonly flags: number;
  }
  /**
   * Opens a file or directory of a mount, while nothing is mounted in it: no
   * path will lead there.
   */
  | {
    readonly kind: "open";
    /** Of files.img: what it is opened for. */
    readonly file: number;
    readonly mount: number;
    /** From the root of `mount`; the nearest directory that is there is opened. */
    readonly path: string;
  }
  /** Goes to another of the namespaces that are made. */
  | { readonly kind: "enter"; readonly namespace: number }
  /** Mounts it where it belongs, in the namespace that was entered. */
  | {
    readonly kind: "attach";
    readonly mount: number;
    /** The mount it is mounted on; undefined: it is the root of the namespace. */
    readonly to: number | undefined;
    /** From the root of `to`; "": on that root itself. */
    readonly path: string;
  }
  /** Makes the mount without a parent the root of the entered namespace. */
  | { readonly kind: "pivot"; readonly mount: number }
  /** Makes it a peer, and a slave, as another mount is. */
  | { readonly kind: "join"; readonly mount: number; readonly from: number }
  /** The same with a mount of ckpt's own namespace. */
  | {
    readonly kind: "join host";
    readonly mount: number;
    /** Its id in ckpt's own namespace. */
    readonly host: number;
    readonly path: string;
  }
  /** Makes it a slave of the group that it is in. */
  | { readonly kind: "slave"; readonly mount: number }
  /** Makes it the first of a new peer group. */
  | { readonly kind: "share"; readonly mount: number }
  | { readonly kind: "unbindable"; readonly mount: number }
  /** Goes back to ckpt's own namespace: what was kept is gone. */
  | { readonly kind: "leave" };

const FLAG_NAMES = Object.entries(MS);

/** For people: one line. */
export function describeOperation(operation: Operation): string {
  switch (operation.kind) {
    case "create": {
      const { mount, type, source, options, superFlags } = operation;
      const all = [...options, ...flagNames(superFlags)].join(",");
      return `create ${mount}: ${type} ${source || "none"}${
        all === "" ? "" : ` (${all})`
      }`;
    }
    case "overlay": {
      const { mount, layers } = operation;
      const all = layers.map(({ role, from, path }) =>
        `${role} ${from}, ${path || "its root"}`
      ).join("; ");
      return `create ${mount}: overlay of ${all}`;
    }
    case "fill":
      return `fill ${operation.mount} from the image`;
    case "remake": {
      const { mount, from, path } = operation;
      return `make ${mount} again, which was ${path} of ${from}`;
    }
    case "remove":
      return "remove what was made again";
    case "seal":
      return `make the file system of ${operation.mount} read-only`;
    case "clone":
      return `clone ${operation.mount} from ${operation.path}`;
    case "keep":
      return `keep ${operation.mount}`;
    case "bind":
      return `bind ${operation.mount} from ${operation.from}, ${operation.path}`;
    case "open": {
      const { file, mount, path } = operation;
      return `open file ${file} on ${mount}, ${path || "its root"}`;
    }
    case "attributes":
      return `flags of ${operation.mount}: ${
        flagNames(operation.flags).join(",") || "none"
      }`;
    case "enter":
      return operation.namespace === YARD
        ? "enter the yard"
        : `enter namespace ${operation.namespace}`;
    case "attach": {
      const { mount, to, path } = operation;
      return to === undefined
        ? `attach ${mount} as the root`
        : `attach ${mount} to ${to}, ${path === "" ? "on its root" : path}`;
    }
    case "pivot":
      return `pivot into ${operation.mount}`;
    case "join":
      return `set the group of ${operation.mount} from ${operation.from}`;
    case "join host":
      return `set the group of ${operation.mount} from the host's ` +
        operation.path;
    case "slave":
      return `make ${operation.mount} a slave`;
    case "share":
      return `make ${operation.mount} shared`;
    case "unbindable":
      return `make ${operation.mount} unbindable`;
    case "leave":
      return "leave";
  }
}

function flagNames(flags: number): string[] {
  return FLAG_NAMES.filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name.toLowerCase());
}
