/**
 * What `dump` and `check` are asked to do, and what they answer. The command
 * line fills the options in; every path in them is absolute.
 */
import type { Reason } from "../error.ts";
import type { LinkPlace } from "../ghost/links.ts";
import type { ValidationMethod } from "../ghost/validation.ts";

export interface DumpOptions {
  /** Root of the process tree, in the pid namespace of ckpt. */
  pid: number;
  imagesDirectory: string;
  /** Where the statistics go; the images directory unless `-W` was given. */
  workDirectory: string;
  /** Let the program go on afterwards. Never together with `leaveStopped`. */
  leaveRunning: boolean;
  /** Leave the program stopped afterwards. */
  leaveStopped: boolean;
  /** The program may belong to a session and terminal of the outside. */
  shellJob: boolean;
  /** `KEY[:VALUE]` as given, in order. */
  external: string[];
  /** Root of the file system to work on; ckpt's own when missing. */
  root?: string;
  /** How long stopping the tree may take; 0 is for ever. */
  timeoutSeconds: number;
  /** Directory of a cgroup to freeze while the tree is being stopped. */
  freezeCgroup?: string;
  /** Replace an image that is already in the directory. */
  replace: boolean;
  /** Consent to file locks that processes outside have, too. */
  fileLocks?: boolean;
  /** Consent to links in the file systems of the program. */
  linkRemap?: boolean;
  /** Where these are made; beside the paths the files had unless given. */
  linkPlace?: LinkPlace;
  /** How many bytes of one deleted file are saved at most. */
  ghostLimit?: bigint;
  /** What is recorded for a restore to compare files with; build-ids unless given. */
  fileValidation?: readonly ValidationMethod[];
  /** What to do when files change that the image depends on. */
  watchFs?: "fail" | "report";
  /** Freeze the file systems that are written to, for at most so many seconds. */
  freezeFs?: number;
  /** Take the layers of overlays for what their options say. */
  overlayTrustOptions?: boolean;
  /** What to take of the files while the program stands still. */
  snapshot?: "btrfs" | { command: string };
  /** Only tell what would be done: see {@link CheckResult}. */
  dryRun?: boolean;
  /** Directories to search through for watched files. */
  irmapScanPaths?: readonly string[];
  /** Search through the file systems of watched files. */
  forceIrmap?: boolean;
  /** Save TCP connections. */
  tcpEstablished?: boolean;
  /** Leave TCP connections out: they are closed after a restore. */
  tcpClose?: boolean;
  /** Leave out TCP connections that wait to be accepted. */
  skipInFlight?: boolean;
  /** Connect Unix datagram sockets to those of the outside again by name. */
  extUnixSk?: boolean;
}

export interface DumpResult {
  pid: number;
  imagesDirectory: string;
}

/** A file whose path does not lead to it. */
export interface CaredFile {
  /** What the link to it in /proc shows. */
  file: string;
  /** What uses it, of which process: "descriptor 5"; one of those that do. */
  holder: string;
  task: number;
  fate: "ghost" | "link" | "elsewhere" | "refused";
  /** Bytes it takes on its file system. */
  bytes: bigint;
  /** Where it is found instead. */
  path?: string;
  /** The option it needs. */
  option?: string;
  /** Why it is refused. */
  why?: string;
}

/** A process as a dump would save it. */
export interface PlannedProcess {
  pid: number;
  name: string;
  threads: number;
  /** Bytes of its own memory in use, in RAM and swapped out. */
  memory: number;
}

export interface CheckOptions {
  /** Root of the tree to look at; the host alone when missing. */
  pid?: number;
  shellJob: boolean;
  external: string[];
  root?: string;
  /** These as of a dump. */
  fileLocks?: boolean;
  freezeCgroup?: string;
  linkRemap?: boolean;
  ghostLimit?: bigint;
  overlayTrustOptions?: boolean;
  /** Where the images would go; not looked at when missing. */
  imagesDirectory?: string;
  replace?: boolean;
  irmapScanPaths?: readonly string[];
  forceIrmap?: boolean;
  workDirectory?: string;
  freezeFs?: number;
  /** Save TCP connections. */
  tcpEstablished?: boolean;
  /** Leave TCP connections out: they are closed after a restore. */
  tcpClose?: boolean;
  /** Leave out TCP connections that wait to be accepted. */
  skipInFlight?: boolean;
  /** Connect Unix datagram sockets to those of the outside again by name. */
  extUnixSk?: boolean;
  snapshot?: "btrfs" | { command: string };
}

export interface CheckResult {
  pid?: number;
  /** Why it could not be dumped; empty when it can. */
  reasons: readonly Reason[];
  /** The options a dump would need, as they are typed: "--shell-job". */
  neededOptions: readonly string[];
  /** Files whose path does not lead to them, and what a dump does about it. */
  files?: readonly CaredFile[];
  /** The root first, parents before children; those that have ended left out. */
  processes?: readonly PlannedProcess[];
}
