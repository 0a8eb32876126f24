/**
 * The namespaces of a tree that are not those in which ckpt was called: ckpt is
 * inside of them (lib/ns/enter.ts), and reads what it finds there.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import type {
  ckpt_cgroup_namespace_entry,
  ckpt_sysctl_entry,
} from "../image/schema.gen.ts";
import { cgroupRoots } from "../ns/cgroup.ts";
import { expectedNamespace, inside, isEntered } from "../ns/inside.ts";
import { type NamespaceIds, numberNamespaces } from "../ns/kinds.ts";
import { dumpIpcLimits } from "../ns/ipc.ts";
import {
  dumpNetwork,
  networkProblems,
  readNetworkValues,
} from "../ns/network.ts";
import { dumpUts } from "../ns/uts.ts";
import {
  listProcesses,
  readCgroup,
  readNamespace,
  readStat,
} from "../proc/read.ts";
import { dumpCgroups } from "../task/cgroups.ts";
import { detachedProblems } from "./detached_segments.ts";
import type { TreeSighting } from "./survey_tree.ts";

export type WriteNamespaces = (writer: ImageWriter) => void;

/** Why they cannot be saved. */
export function namespaceProblems(seen: TreeSighting): Reason[] {
  return [
    ...isEntered("pid") ? strangers(seen) : [],
    ...isEntered("net") ? networkProblems() : [],
    ...detachedProblems(seen.segments.segments),
  ];
}

/**
 * Those that entered the pid namespace, as by nsenter(1): they end with its
 * init, and would not come back.
 */
function strangers({ tree: { members: [root] } }: TreeSighting): Reason[] {
  return listProcesses().filter((pid) =>
    pid !== root.pid && pid !== Deno.pid && hasParentOutside(pid)
  ).map((pid) => ({
    object: `task ${pid}`,
    why: "it is in the pid namespace of the program, but not below its init",
    remedy: "end it first",
  }));
}

function hasParentOutside(pid: number): boolean {
  try {
    return readStat(pid).ppid === 0;
  } catch (error) {
    if (error instanceof CkptError) return false; // it is gone
    throw error;
  }
}

/** Whether the tree is in a cgroup namespace of its own. */
function hasCgroupNamespace(root: number): boolean {
  const expected = expectedNamespace("cgroup");
  return expected !== undefined && readNamespace(root, "cgroup") !== expected;
}

/**
 * Where the cgroup namespace of the tree begins, as far as that is elsewhere
 * than ckpt is.
 *
 * @param root a thread of the root
 * @returns undefined where the tree has none of its own
 * @throws CkptError refused, where the root has left it
 */
export function readCgroupNamespace(
  root: number,
): ckpt_cgroup_namespace_entry | undefined {
  if (!hasCgroupNamespace(root)) return undefined;
  const roots = cgroupRoots(root);
  if (roots === undefined) {
    throw new CkptError(EXIT.refused, `dumping task ${root}`, [{
      object: `task ${root}`,
      why: "it is in a cgroup that its cgroup namespace does not show",
      remedy: "move it below the cgroup in which it made the namespace",
    }]);
  }
  return { roots: dumpCgroups(roots, readCgroup(Deno.pid)) };
}

/** The numbers of the namespaces that all of the tree is in. */
export function namespaceIds(
  cgroup: ckpt_cgroup_namespace_entry | undefined,
): NamespaceIds {
  return numberNamespaces((kind) =>
    isEntered(kind) || kind === "cgroup" && cgroup !== undefined
  );
}

/** What takes long to read, and few ever change: before the tree is stopped. */
export function readValues(): ckpt_sysctl_entry[] | undefined {
  return isEntered("net") ? readNetworkValues() : undefined;
}

/** Reads them while the tree stands still. */
export async function readNamespaces(
  ids: NamespaceIds,
  values: readonly ckpt_sysctl_entry[] | undefined,
): Promise<WriteNamespaces | undefined> {
  if (inside() === undefined) return undefined;
  const uts = isEntered("uts") ? dumpUts() : undefined;
  const ipc = isEntered("ipc")
    ? { limits: dumpIpcLimits(), ...await readSysvObjects() }
    : undefined;
  const net = isEntered("net") ? dumpNetwork(values ?? []) : undefined;
  return (writer) => {
    if (net !== undefined) {
      writer.write("netns", ids.net_ns_id, net.namespace);
      writer.write("netdev", ids.net_ns_id, [...net.devices]);
      writer.write("ckpt-sysctls", undefined, [...net.sysctls]);
      const path = writer.createRaw(`ifaddr-${ids.net_ns_id}.img`);
      Deno.writeFileSync(path, net.addresses);
    }
    if (uts !== undefined) writer.write("utsns", ids.uts_ns_id, uts);
    if (ipc !== undefined) {
      writer.write("ipcns-var", ids.ipc_ns_id, ipc.limits);
      if (ipc.queues.length > 0) {
        writer.write("ipcns-msg", ids.ipc_ns_id, ipc.queues);
      }
      if (ipc.semaphores.length > 0) {
        writer.write("ipcns-sem", ids.ipc_ns_id, ipc.semaphores);
      }
    }
  };
}

/** Queues and semaphores of the ipc namespace that ckpt is in. */
async function readSysvObjects() {
  const { dumpQueues } = await import("../ns/sysv_queues.ts");
  const { dumpSemaphores } = await import("../ns/sysv_semaphores.ts");
  return { queues: dumpQueues(), semaphores: dumpSemaphores() };
}
