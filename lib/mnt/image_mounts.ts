/** What an image tells of mount namespaces, and what a restore has to know. */
import type { Mount } from "./mount.ts";
import type { Layer } from "./overlay_layers.ts";

/** A mount as an image tells of it. */
export interface ImageMount extends Mount {
  /** How it comes from the outside, where it does. */
  readonly external?:
    /** What `--external mnt[NAME]:PATH` says. */
    | { readonly kind: "named"; readonly name: string }
    /** The path that the dump found, if the restore may take it. */
    | { readonly kind: "automatic"; readonly path: string }
    /** What `--external dev[NAME]:PATH` says. */
    | { readonly kind: "device"; readonly name: string };
  readonly hostPath?: string;
  readonly peerPath?: string;
  readonly masterPath?: string;
  /** Of an overlay. */
  readonly layers?: readonly Layer[];
  /** Of one that is deleted: the mount whose archive holds what it shows. */
  readonly removed?: number;
}

export interface NamespaceImage {
  /** mnt_ns_id */
  readonly number: number;
  /** In the order that mountinfo showed. */
  readonly mounts: readonly ImageMount[];
  /** Those that were unmounted, and have files of the tree. */
  readonly detached?: readonly ImageMount[];
}

/** What a path of ckpt's own namespace leads to. */
export interface HostPlace {
  readonly path: string;
  readonly mount: Mount;
  /** The way from the root of its superblock. */
  readonly root: string;
}

export interface RestoreMountsInput {
  /** That of the root of the tree first. */
  readonly namespaces: readonly NamespaceImage[];
  /** As given; what becomes the root of the first namespace. */
  readonly root?: string;
  /** Paths by the names of `--external mnt[NAME]:PATH`. */
  readonly mounts: ReadonlyMap<string, string>;
  /** The same for `dev[NAME]`. */
  readonly devices: ReadonlyMap<string, string>;
  /** Whether `--external mnt[]` was given. */
  readonly automatic: boolean;
  /** Whether layers of overlays may be others than at the dump. */
  readonly trustsOverlays?: boolean;
  /** ckpt's own mounts. */
  readonly host: readonly Mount[];
  /** Undefined: there is nothing. */
  place(path: string): HostPlace | undefined;
  /** Files of the tree, so far as they are on mounts of the image. */
  readonly files: readonly PlacedFile[];
  /** Whether the image holds what was in a superblock, by its device. */
  hasContent(device: number): boolean;
}

/** A file of files.img. */
export interface PlacedFile {
  readonly id: number;
  readonly name: string;
  readonly mount: number;
  /** It has no name any more: its directory is needed. */
  readonly isNameless: boolean;
}
