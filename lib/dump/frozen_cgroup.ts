/**
 * Whether a process is held by the freezer of its cgroup (cgroup v2,
 * Documentation/admin-guide/cgroup-v2.rst): it can be stopped then, but cannot
 * do anything that it is asked to.
 */
import { readCgroup, readMountInfo } from "../proc/read.ts";

/** @returns the directory of the frozen cgroup; undefined when none is */
export function frozenCgroup(pid: number): string | undefined {
  const own = readCgroup(pid).find(({ hierarchy }) => hierarchy === 0);
  if (own === undefined) return undefined;
  const mount = readMountInfo(Deno.pid).find(({ type }) => type === "cgroup2");
  if (mount === undefined || !own.path.startsWith(mount.root)) return undefined;
  const below = mount.root === "/"
    ? own.path
    : own.path.slice(mount.root.length);
  const directory = `${mount.mountPoint}${below}`;
  try {
    const events = Deno.readTextFileSync(`${directory}/cgroup.events`);
    return /^frozen 1$/m.test(events) ? directory : undefined;
  } catch (error) {
    // The root cgroup has no such file and cannot be frozen.
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
