/**
 * Cgroup namespaces (cgroup_namespaces(7)): what processes in one see of their
 * cgroups begins at its roots, those that its first process was in.
 */
import { close, O, open, syscall } from "../ffi/syscall.ts";
import type { CgroupMembership } from "../proc/cgroup.ts";
import { readCgroup } from "../proc/read.ts";
import { NAMESPACE_FLAGS } from "./kinds.ts";

/**
 * The cgroups of a process as it sees them itself. ckpt's main thread goes to
 * its namespace for that.
 */
function readCgroupFromInside(pid: number): readonly CgroupMembership[] {
  const kind = BigInt(NAMESPACE_FLAGS.cgroup);
  const own = open("/proc/self/ns/cgroup", O.RDONLY);
  try {
    const theirs = open(`/proc/${pid}/ns/cgroup`, O.RDONLY);
    try {
      syscall("setns", BigInt(theirs), kind);
    } finally {
      close(theirs);
    }
    try {
      return readCgroup(pid);
    } finally {
      syscall("setns", BigInt(own), kind);
    }
  } finally {
    close(own);
  }
}

/**
 * The roots of the namespace that a process is in.
 *
 * @returns undefined where the process has left them ("/..")
 */
export function cgroupRoots(pid: number): CgroupMembership[] | undefined {
  return rootsOf(readCgroup(pid), readCgroupFromInside(pid));
}

/**
 * Pure: the ends of both paths are the same.
 *
 * @param outside where the cgroups are, @param inside as their process sees them
 */
export function rootsOf(
  outside: readonly CgroupMembership[],
  inside: readonly CgroupMembership[],
): CgroupMembership[] | undefined {
  const roots: CgroupMembership[] = [];
  for (const one of outside) {
    const seen = inside.find(({ hierarchy }) => hierarchy === one.hierarchy);
    const end = seen?.path === "/" ? "" : seen?.path;
    if (end === undefined || end.startsWith("/..") || !one.path.endsWith(end)) {
      return undefined;
    }
    roots.push({
      ...one,
      path: one.path.slice(0, one.path.length - end.length) || "/",
    });
  }
  return roots;
}
