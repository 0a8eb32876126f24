/** When the processes of a tree join their cgroups, and what could not be. */
import type { Program } from "../ffi/program.ts";
import { NAMESPACE_FLAGS } from "../ns/kinds.ts";
import { readMountInfo } from "../proc/read.ts";
import type { Report } from "../report.ts";
import { restoreCgroups } from "../task/cgroups.ts";
import type { TreeImages } from "./task_images.ts";
import type { Member } from "./tree_agents.ts";

/** It begins where its first process is when it makes it. */
export function makeCgroupNamespace(
  begin: Program,
  { processes: [{ pid, extension }] }: Pick<TreeImages, "processes">,
  report: Report,
): void {
  const { cgroup_namespace } = extension;
  if (cgroup_namespace === undefined) return;
  const mounts = readMountInfo(Deno.pid);
  for (const problem of restoreCgroups(pid, cgroup_namespace.roots, mounts)) {
    report.log(2, problem);
  }
  begin.call(
    "unshare",
    [NAMESPACE_FLAGS.cgroup],
    "making the cgroup namespace",
  );
}

export function joinCgroups(
  members: readonly Pick<Member, "images">[],
  report: Report,
): void {
  if (members.every(({ images }) => !images.extension.cgroups.length)) {
    return;
  }
  const mounts = readMountInfo(Deno.pid);
  for (const { images: { pid, extension } } of members) {
    for (const problem of restoreCgroups(pid, extension.cgroups, mounts)) {
      report.log(2, problem);
    }
  }
}
