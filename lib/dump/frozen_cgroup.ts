/**
 * Whether processes are held by the freezer of their cgroup, version 1 or 2: a
 * frozen process can be stopped, but cannot do anything that it is asked to.
 */
import type { Reason } from "../error.ts";
import type { CgroupMembership } from "../proc/cgroup.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { readCgroup, readMountInfo } from "../proc/read.ts";
import {
  type CgroupVersion,
  isFrozenByItself,
} from "../task/cgroup_freezer.ts";
import { cgroupDirectory } from "../task/cgroups.ts";

/**
 * @param freezeCgroup of `--freeze-cgroup`: that one may be frozen, and what is
 * below it
 * @param copies of processes that may go on meanwhile, by their pids
 * @throws CkptError when a process is gone
 */
export function frozenByOthers(
  pids: readonly number[],
  freezeCgroup: string | undefined,
  copies: ReadonlyMap<number, number>,
): Reason[] {
  const mounts = readMountInfo(Deno.pid);
  const known = new Map<string, string | undefined>();
  const reasons: Reason[] = [];
  for (const pid of pids) {
    for (
      const { path, version } of freezersOf(readCgroup(copies.get(pid) ?? pid))
    ) {
      const key = `${version} ${path}`;
      if (!known.has(key)) {
        known.set(key, highestFrozen(path, version, mounts, freezeCgroup));
      }
      const frozen = known.get(key);
      if (frozen === undefined) continue;
      reasons.push({
        object: `task ${pid}`,
        why: `it is frozen by cgroup ${frozen}`,
        remedy: `give --freeze-cgroup ${frozen}: it stays frozen; or let it ` +
          `go on: echo ${
            version === 1
              ? `THAWED > ${frozen}/freezer.state`
              : `0 > ${frozen}/cgroup.freeze`
          }`,
      });
    }
  }
  return reasons;
}

/** A cgroup that can freeze what is in it. */
export interface Freezer {
  readonly path: string;
  readonly version: CgroupVersion;
}

/** The cgroups of a process that can freeze it. */
export function freezersOf(
  memberships: readonly CgroupMembership[],
): Freezer[] {
  return memberships.filter(({ hierarchy, controllers }) =>
    hierarchy === 0 || controllers.includes("freezer")
  ).map(({ hierarchy, path }) => ({ path, version: hierarchy === 0 ? 2 : 1 }));
}

/** The paths of a cgroup and of all above it but the root, upwards. */
export function upwards(path: string): string[] {
  const paths: string[] = [];
  for (let at = path; at.length > 1; at = at.slice(0, at.lastIndexOf("/"))) {
    paths.push(at);
  }
  return paths;
}

/**
 * The directory of the highest cgroup that is frozen by itself, above
 * `freezeCgroup` where that is among them.
 */
function highestFrozen(
  path: string,
  version: CgroupVersion,
  mounts: readonly MountInfo[],
  freezeCgroup: string | undefined,
): string | undefined {
  const controllers = version === 1 ? "freezer" : "";
  const directories = upwards(path).flatMap((path) =>
    cgroupDirectory({ controllers, path }, mounts) ?? []
  );
  const own = freezeCgroup === undefined ? -1 : directories.findIndex(
    (directory) => isSameDirectory(directory, freezeCgroup),
  );
  return directories.slice(own + 1).findLast((directory) => {
    try {
      return isFrozenByItself(directory, version);
    } catch (error) {
      // The root of a mount or hierarchy cannot be frozen.
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  });
}

function isSameDirectory(one: string, other: string): boolean {
  try {
    const [a, b] = [Deno.statSync(one), Deno.statSync(other)];
    return a.dev === b.dev && a.ino === b.ino;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
