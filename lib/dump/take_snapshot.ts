/**
 * Takes what keeps the files of a tree as they are while it stands still
 * (--snapshot): snapshots of btrfs, or whatever a command of the user does.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { hasSubvolumes, subvolumeOf } from "../ghost/subvolumes.ts";
import type { DumpSnapshots } from "../ghost/snapshots.ts";
import type { Report } from "../report.ts";
import type { DependedFile } from "./depended_files.ts";
import { fileSystemsOf, Mounts, writtenFiles } from "./file_systems.ts";
import type { DumpOptions } from "./options.ts";

/** Subvolumes that hold files which the tree writes to. */
function subvolumesOf(files: readonly DependedFile[]): ReadonlySet<string> {
  return new Set(
    writtenFiles(files).flatMap(({ path }) => subvolumeOf(path) ?? []),
  );
}

/** Why no snapshots can be taken, before the tree is stopped. */
export function snapshotProblems(files: readonly DependedFile[]): Reason[] {
  if (subvolumesOf(files).size > 0) return [];
  return [{
    object: "--snapshot btrfs",
    why: "the program has no file open for writing in a subvolume of btrfs",
    remedy: "leave it out, or give --snapshot command:COMMAND",
  }];
}

/** @throws CkptError when the file system refuses one */
export function takeSnapshots(
  files: readonly DependedFile[],
  snapshots: DumpSnapshots,
  report: Report,
): void {
  for (const { path } of writtenFiles(files)) {
    if (subvolumeOf(path) !== undefined) continue;
    report.log(
      2,
      `file ${path} is in no subvolume of btrfs: no snapshot has it`,
    );
  }
  for (const subvolume of subvolumesOf(files)) {
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
 * the paths of these files, a zero after each.
 *
 * @throws CkptError when it fails
 */
export async function runSnapshotCommand(
  command: string,
  files: readonly DependedFile[],
  { pid, imagesDirectory }: Pick<DumpOptions, "pid" | "imagesDirectory">,
  report: Report,
): Promise<void> {
  const mounts = fileSystemsOf(files, new Mounts());
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", command],
    env: {
      CKPT_PID: `${pid}`,
      CKPT_IMAGES_DIR: imagesDirectory,
      CKPT_MOUNTS: mounts.map(({ mountPoint }) => mountPoint).join("\n"),
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    signal: report.signal,
  }).spawn();
  const input = child.stdin.getWriter();
  const paths = writtenFiles(files).map(({ path }) => `${path}\0`).join("");
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
    remedy: "the log has what it wrote",
  }]);
}
