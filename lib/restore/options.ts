/**
 * What `restore` is asked to do, and what it answers. The command line fills
 * the options in; every path in them is absolute.
 */
import type { Reason } from "../error.ts";
import type { EndTexts } from "../ns/inside.ts";
import type { ValidationMethod } from "../ghost/validation.ts";

/** A descriptor of ckpt's own that takes the place of one in the images. */
export interface InheritedDescriptor {
  /** Number of the descriptor in ckpt. */
  fd: number;
  /** What it stands for: "pipe[1234]", "tty[rdev:dev]", a path. */
  key: string;
}

export interface RestoreOptions {
  imagesDirectory: string;
  /** Where the statistics go; the images directory unless `-W` was given. */
  workDirectory: string;
  /** Return once the program runs, instead of waiting for its end. */
  detached: boolean;
  /** Make the program a sibling of ckpt. Only together with `detached`. */
  sibling: boolean;
  /** Leave the program stopped once it is complete. */
  leaveStopped: boolean;
  /** File that gets the pid of the program's root, in ckpt's pid namespace. */
  pidfile?: string;
  /** The program joins ckpt's session and terminal. */
  shellJob: boolean;
  /** `KEY[:VALUE]` as given, in order. */
  external: string[];
  /** In the order given; no key occurs twice. */
  inheritFd: InheritedDescriptor[];
  /** Root of the file system to work on; ckpt's own when missing. */
  root?: string;
  /** Take other directories for the layers of overlays. */
  overlayTrustOptions?: boolean;
  /** Restore TCP connections. */
  tcpEstablished?: boolean;
  /** Restore TCP connections as closed ones. */
  tcpClose?: boolean;
  /** What files are compared by; all that was recorded unless given. */
  fileValidation?: readonly ValidationMethod[];
  /** Put the snapshots back that the dump has taken. Never with `dryRun`. */
  fromSnapshot?: boolean;
  /** Only check everything and tell what would be started. */
  dryRun?: boolean;
  /** What another prints of a result whose end is not known yet. */
  endTexts?: (result: RestoreResult) => EndTexts;
}

/** What a restore would start, or why it would not. */
export interface RestorePlan {
  /** Why nothing can be restored here; empty when it can. */
  reasons: readonly Reason[];
  /** The root first, parents before children; those that have ended left out. */
  processes: readonly {
    pid: number;
    name: string;
    threads: number;
    /** Bytes to be read from the image. */
    memory: number;
  }[];
  /** Deleted files that would be made again, without a name. */
  ghosts: readonly string[];
  /** How mount namespaces would be made, a line for each step. */
  mounts?: readonly string[];
}

export interface RestoreResult {
  /** Of the program's root, in ckpt's pid namespace. */
  pid: number;
  /** How the program ended, when ckpt waited for it: its exit status ... */
  exit?: number;
  /** ... or the number of the signal that killed it. */
  signal?: number;
  /** Figures of the run. */
  stats?: object;
  /** Of a dry run. */
  plan?: RestorePlan;
  /** Set where another waits for its end, and tells of that. */
  waitsElsewhere?: true;
}
