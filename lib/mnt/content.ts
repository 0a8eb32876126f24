/**
 * What processes keep in file systems that live in memory, as CRIU's
 * tmpfs-dev-N.tar.gz.img: an archive of the file system from its root on.
 * Made by tar(1).
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { S_IF, stat } from "../ffi/syscall.ts";
import type { Mount } from "./mount.ts";

/**
 * The name of the archive of a superblock, by its device; of a part, which has
 * to be put to its place again, by the mount that shows it.
 */
export function contentName(
  { root, device, id }: Pick<Mount, "root" | "device" | "id">,
): string {
  return root === "/"
    ? `tmpfs-dev-${device}.tar.gz.img`
    : `tmpfs-${id}.tar.gz.img`;
}

const COMMON = [
  "--gzip",
  "--numeric-owner",
  "--xattrs",
  "--xattrs-include=*",
  "--acls",
  "--warning=no-timestamp",
  "--warning=no-file-ignored",
];

/** What a file is called in an archive that holds nothing else. */
const SINGLE = "file";

/**
 * @param root descriptor of the root of a mount, a directory or a file, with
 * nothing mounted in it
 */
export function saveContent(root: number, archive: string): Promise<unknown> {
  const isDirectory = (stat(root).mode & S_IF.MT) === S_IF.DIR;
  const descriptors = `/proc/${Deno.pid}/fd`;
  return tar("saving", [
    "--create",
    "--sparse",
    "--one-file-system",
    ...COMMON,
    "--file",
    archive,
    ...isDirectory ? ["--directory", `${descriptors}/${root}`, "."] : [
      "--directory",
      descriptors,
      "--dereference",
      `--transform=s/^${root}$/${SINGLE}/`,
      `${root}`,
    ],
  ]);
}

/**
 * @param root descriptor of the root directory of an empty superblock
 * @param mounts those of it that the image may have archives of
 */
export async function restoreContent(
  root: number,
  mounts: readonly Mount[],
  pathOf: (name: string) => string,
): Promise<void> {
  const done = new Set<string>();
  for (const mount of mounts) {
    const archive = pathOf(contentName(mount));
    if (done.has(archive) || !isThere(archive)) continue;
    done.add(archive);
    const top = `/proc/${Deno.pid}/fd/${root}`;
    const place = top + mount.root;
    const parent = place.slice(0, place.lastIndexOf("/"));
    Deno.mkdirSync(`${parent}/`, { recursive: true });
    const single = mount.root !== "/" && await isSingle(archive);
    if (!single) Deno.mkdirSync(`${place}/`, { recursive: true });
    await tar("restoring", [
      "--extract",
      "--preserve-permissions",
      "--same-owner",
      "--delay-directory-restore",
      ...COMMON,
      "--file",
      archive,
      "--directory",
      single ? parent : place,
      ...single ? [`--transform=s/^${SINGLE}$/${TEMPORARY}/`] : [],
    ]);
    if (single) Deno.renameSync(`${parent}/${TEMPORARY}`, place);
  }
}

/** A file has this name until it gets its own. */
const TEMPORARY = ".ckpt-content";

export function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function isSingle(archive: string): Promise<boolean> {
  const list = await tar("restoring", ["--list", "--file", archive]);
  return list.trim() === SINGLE;
}

async function tar(
  what: string,
  args: readonly string[],
): Promise<string> {
  const fail = (reason: Omit<Reason, "object">): never => {
    throw new CkptError(
      EXIT.failed,
      `${what} the content of a file system`,
      [{ object: "tar(1)", ...reason }],
    );
  };
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command("tar", {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return fail({ why: "is not there", remedy: "install tar" });
  }
  if (!output.success) {
    fail({ why: new TextDecoder().decode(output.stderr).trim() });
  }
  return new TextDecoder().decode(output.stdout);
}
