/**
 * The cgroups of a process, as far as they are not those of ckpt (cgroups(7)).
 * A restored process starts in ckpt's and is moved to its own where they exist.
 */
import type { ckpt_cgroup_entry } from "../image/schema.gen.ts";
import type { CgroupMembership } from "../proc/cgroup.ts";
import type { MountInfo } from "../proc/mountinfo.ts";

/** The memberships that differ. */
export function dumpCgroups(
  process: readonly CgroupMembership[],
  own: readonly CgroupMembership[],
): ckpt_cgroup_entry[] {
  const ownPaths = new Map(own.map((one) => [key(one), one.path]));
  return process.filter((one) => ownPaths.get(key(one)) !== one.path)
    .map((one) => ({ controllers: key(one), path: one.path }));
}

function key({ controllers }: CgroupMembership): string {
  return controllers.join(",");
}

/**
 * The directory of a cgroup in the mounts that ckpt sees; undefined when its
 * hierarchy is not mounted.
 */
export function cgroupDirectory(
  { controllers, path }: ckpt_cgroup_entry,
  mounts: readonly MountInfo[],
): string | undefined {
  const wanted = controllers.split(",");
  const mount = mounts.find(({ type, superOptions, root }) =>
    path.startsWith(root) &&
    (controllers === "" ? type === "cgroup2" : type === "cgroup" &&
      wanted.every((name) => superOptions.includes(name)))
  );
  if (mount === undefined) return undefined;
  const below = mount.root === "/" ? path : path.slice(mount.root.length);
  return `${mount.mountPoint}${below}`;
}

/**
 * Moves a process.
 *
 * @returns what could not be done, one sentence for each cgroup
 */
export function restoreCgroups(
  pid: number,
  cgroups: readonly ckpt_cgroup_entry[],
  mounts: readonly MountInfo[],
): string[] {
  return cgroups.flatMap((cgroup) => {
    const directory = cgroupDirectory(cgroup, mounts);
    const name = `cgroup ${cgroup.controllers || "(version 2)"} ${cgroup.path}`;
    const stays = "the program stays in the one of ckpt";
    if (directory === undefined) return [`${name} is not mounted: ${stays}`];
    try {
      Deno.writeTextFileSync(`${directory}/cgroup.procs`, `${pid}`, {
        create: false,
      });
      return [];
    } catch (error) {
      const why = error instanceof Deno.errors.NotFound
        ? "does not exist here"
        : `cannot be joined (${
          error instanceof Error ? error.message : error
        })`;
      return [`${name} ${why}: ${stays}`];
    }
  });
}
