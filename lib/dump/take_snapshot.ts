/**
 * Takes what keeps the files of a tree as they are while it stands still
 * (--snapshot): snapshots of btrfs, or whatever a command of the user does.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { BTRFS } from "../ghost/btrfs.ts";
import { fileSystemType } from "../ghost/calls.ts";
import { hasSubvolumes, subvolumeOf } from "../ghost/subvolumes.ts";
import type { DumpSnapshots } from "../ghost/snapshots.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import type { Report } from "../report.ts";
import type { DependedFile } from "./depended_files.ts";
import {
  fileSystemsOf,
  Mounts,
  placeFor,
  writtenFiles,
} from "./file_systems.ts";
import type { DumpOptions } from "./options.ts";

/** A file that the tree writes to, by a path of ckpt's own mount namespace. */
interface WrittenFile {
  readonly path: string;
  /** Undefined: that namespace does not show it. */
  readonly outside: string | undefined;
  /** It is on btrfs. */
  readonly hasSubvolume: boolean;
}

function writtenFilesOf(
  files: readonly DependedFile[],
  namespaces: SeenNamespaces | undefined,
): WrittenFile[] {
  return writtenFiles(files).map(({ path, at, mountId }) => ({
    path,
    outside: mountId === undefined
      ? path
      : namespaces?.outsidePath(mountId, path),
    hasSubvolume: fileSystemType(at) === BTRFS,
  }));
}

/** Subvolumes that hold files which the tree writes to. */
function subvolumesOf(files: readonly WrittenFile[]): ReadonlySet<string> {
  return new Set(
    files.flatMap(({ outside }) =>
      outside === undefined ? [] : subvolumeOf(outside) ?? []
    ),
  );
}

/** Why no snapshots can be taken, before the tree is stopped. */
export function snapshotProblems(
  files: readonly DependedFile[],
  namespaces: SeenNamespaces | undefined,
): Reason[] {
  const written = writtenFilesOf(files, namespaces);
  const hidden = written.filter(({ outside, hasSubvolume }) =>
    hasSubvolume && outside === undefined
  );
  if (hidden.length > 0) {
    return hidden.map(({ path }) => ({
      object: `file ${path}`,
      why: "its subvolume is shown by mounts of the program only, and a " +
        "restore looks for it in ckpt's own mount namespace",
      remedy: "mount its file system where ckpt runs, too",
    }));
  }
  if (subvolumesOf(written).size > 0) return [];
  return [{
    object: "--snapshot btrfs",
    why: "the program has no file open for writing in a subvolume of btrfs",
    remedy: "leave it out, or give --snapshot command:COMMAND",
  }];
}

/** @throws CkptError when the file system refuses one */
export function takeSnapshots(
  files: readonly DependedFile[],
  namespaces: SeenNamespaces | undefined,
  snapshots: DumpSnapshots,
  report: Report,
): void {
  // The tree may have opened others since it was looked at.
  const reasons = snapshotProblems(files, namespaces);
  if (reasons.length > 0) {
    throw new CkptError(EXIT.refused, "taking snapshots", reasons);
  }
  const written = writtenFilesOf(files, namespaces);
  for (const { path, outside } of written) {
    if (outside !== undefined && subvolumeOf(outside) !== undefined) continue;
    report.log(
      2,
      `file ${path} is in no subvolume of btrfs: no snapshot has it`,
    );
  }
  for (const subvolume of subvolumesOf(written)) {
    const snapshot = snapshots.add(subvolume);
    report.log(3, `${snapshot} is a snapshot of ${subvolume}`);
    if (hasSubvolumes(subvolume)) {
      report.log(
        2,
        `there are other subvolumes in ${subvolume}; its snapshot has none ` +
          "of them",
      );
    }
  }
}

/**
 * Runs a command of the user's with sh(1). It finds in its environment
 * CKPT_PID, CKPT_IMAGES_DIR, and CKPT_MOUNTS, the mount points of the file
 * systems that the tree writes to, one in each line; and on its standard input
 * the paths of these files, a zero after each. Those that only the tree's own
 * mount namespace has go through /proc.
 *
 * @throws CkptError when it fails
 */
export async function runSnapshotCommand(
  command: string,
  files: readonly DependedFile[],
  namespaces: SeenNamespaces | undefined,
  { pid, imagesDirectory }: Pick<DumpOptions, "pid" | "imagesDirectory">,
  report: Report,
): Promise<void> {
  const mounts = fileSystemsOf(files, new Mounts(namespaces));
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", command],
    env: {
      CKPT_PID: `${pid}`,
      CKPT_IMAGES_DIR: imagesDirectory,
      CKPT_MOUNTS: mounts.map(({ at }) => at).join("\n"),
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    signal: report.signal,
  }).spawn();
  const input = child.stdin.getWriter();
  const paths = writtenFiles(files)
    .map((file) => `${placeFor(file, namespaces)}\0`).join("");
  // It need not read them.
  const written = input.write(new TextEncoder().encode(paths))
    .then(() => input.close()).catch(() => {});
  const { code, stdout, stderr } = await child.output();
  await written;
  report.signal.throwIfAborted();
  const text = new TextDecoder();
  for (const [level, bytes] of [[3, stdout], [2, stderr]] as const) {
    for (const line of text.decode(bytes).split("\n")) {
      if (line !== "") report.log(level, `snapshot command: ${line}`);
    }
  }
  if (code === 0) return;
  throw new CkptError(EXIT.failed, `dumping task ${pid}`, [{
    object: `--snapshot command:${command}`,
    why: `the command ended with exit code ${code}`,
    remedy: "its errors are told as warnings, with -v3 all that it wrote",
  }]);
}
