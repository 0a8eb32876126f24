/** File systems of a test's own, each in its mount namespace, gone with it. */
import type { Scope } from "./harness.ts";

/** How each is made: on a file that a loop device stands for, but for tmpfs. */
const MAKE: Record<string, string> = {
  ext4:
    "truncate -s 16G disk; mkfs.ext4 -q -E lazy_itable_init=1 disk; mount -o loop disk DIR",
  xfs: "truncate -s 16G disk; mkfs.xfs -q disk; mount -o loop disk DIR",
  btrfs:
    "truncate -s 16G disk; mkfs.btrfs -q disk 2>&1 | grep -i error || :; mount -o loop disk DIR",
  tmpfs: "mount -t tmpfs tmpfs DIR",
};

export const PLAIN = Object.keys(MAKE);

/** "overlay on ext4" has its layers on one file system. */
export const FILE_SYSTEMS = [
  ...PLAIN,
  ...PLAIN.map((name) => `overlay on ${name}`),
];

export interface FileSystem {
  /** Where it is mounted. */
  readonly root: string;
  /** Two directories on it; of btrfs, two subvolumes with the same inode numbers. */
  readonly places: readonly [string, string];
}

/**
 * Mounts a file system in a new mount namespace of the scope.
 *
 * @param lower sh commands that fill the lower layer of an overlay
 */
export async function mountFileSystem(
  scope: Scope,
  name: string,
  { lower = ":" }: { lower?: string } = {},
): Promise<FileSystem> {
  const [, of = name] = name.split(" on ");
  const below = scope.path("below");
  const root = name === of ? below : scope.path("m");
  const overlay = name === of ? ":" : [
    `mkdir ${below}/lower ${below}/upper ${below}/work`,
    `(cd ${below}/lower; ${lower})`,
    `mount -t overlay -o lowerdir=${below}/lower,upperdir=${below}/upper,workdir=${below}/work none ${root}`,
  ].join("; ");
  const makeDirectory = name === "btrfs"
    ? "btrfs -q subvolume create"
    : "mkdir -p";
  await scope.unshareMounts(
    [
      MAKE[of].replace("DIR", below),
      overlay,
      ...["one", "two"].map((place) => `${makeDirectory} ${root}/${place}`),
    ].join("; "),
  );
  return { root, places: [`${root}/one`, `${root}/two`] };
}
