/**
 * What `dump` and `check` are asked to do, and what they answer. The command
 * line fills the options in; every path in them is absolute.
 */
import type { Reason } from "../error.ts";

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
}

export interface DumpResult {
  pid: number;
  imagesDirectory: string;
}

export interface CheckOptions {
  /** Root of the tree to look at; the host alone when missing. */
  pid?: number;
  shellJob: boolean;
  external: string[];
  root?: string;
  /** As of a dump. */
  freezeCgroup?: string;
}

export interface CheckResult {
  pid?: number;
  /** Why it could not be dumped; empty when it can. */
  reasons: readonly Reason[];
  /** The options a dump would need, as they are typed: "--shell-job". */
  neededOptions: readonly string[];
}
