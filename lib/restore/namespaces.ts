/**
 * The namespaces of a tree that had others than those its dumper was called
 * in: they are made, with the agent that becomes the root, before anything
 * else, and ckpt does its work inside of them (lib/ns/enter.ts).
 */
import type { StartOptions } from "../ffi/agent_process.ts";
import type { ImageSet } from "../image/image_set.ts";
import type { task_kobj_ids_entry } from "../image/schema.gen.ts";
import { clockOffsetsHere } from "../ns/clocks.ts";
import { enterNew } from "../ns/enter.ts";
import { type Inside, inside, isEntered, released } from "../ns/inside.ts";
import { restoreIpcLimits } from "../ns/ipc.ts";
import {
  ENTERED_KINDS,
  type EnteredKind,
  isOwnNamespace,
} from "../ns/kinds.ts";
import { parseAddresses, restoreNetwork } from "../ns/network.ts";
import type { Address } from "../ns/rtnetlink.ts";
import { SYSCTL_LISTS, sysctlValues } from "../ns/sysctl_lists.ts";
import { restoreUts } from "../ns/uts.ts";
import type { RestoreOptions } from "./options.ts";
import { wantedIds } from "./taken_ids.ts";
import type { TreeImages } from "./task_images.ts";

/** Whose child the root is to be. */
export function parentOf(
  { sibling, detached }: RestoreOptions,
): StartOptions["parent"] {
  return sibling ? "parentOfCkpt" : detached ? "nobody" : "ckpt";
}

/** The kinds of namespaces that the tree had for itself, of those we enter. */
export function ownKinds(
  set: ImageSet,
  { ids }: { ids: task_kobj_ids_entry },
): EnteredKind[] {
  const dumper = set.inventory.root_ids;
  return ENTERED_KINDS.filter((kind) => isOwnNamespace(kind, ids, dumper));
}

/**
 * Makes them, and goes there: does not return then, but in the ckpt inside.
 *
 * @param kinds of the tree's own
 * @throws CkptError when they cannot be made
 */
export function enterNamespaces(
  images: TreeImages,
  kinds: readonly EnteredKind[],
  options: RestoreOptions,
  action: string,
): void {
  if (kinds.length === 0 || inside() !== undefined) return;
  const { set, processes: [root] } = images;
  enterNew({
    kinds,
    root: root.pid,
    parent: parentOf(options),
    ownPid: kinds.includes("pid") ? freePid(wantedIds(images)) : 0,
    clockOffsets: kinds.includes("time")
      ? clockOffsetsHere(set.require("timens", root.ids.time_ns_id))
      : "",
  }, action);
}

/**
 * Tells the process that the user has called how it goes on when the tree runs:
 * it waits for the tree, where somebody is to.
 *
 * @param stats of the restore, as far as they are known
 */
export function announce(
  place: Inside,
  { detached, shellJob, endTexts }: RestoreOptions,
  stats?: object,
): void {
  const pid = place.rootOutside;
  released(place, {
    wait: !detached,
    passTerminal: !shellJob,
    texts: endTexts?.(stats === undefined ? { pid } : { pid, stats }),
  });
}

/** How many ids ckpt takes at most: those of its threads follow its own. */
const OWN_IDS = 200;

/**
 * An id for ckpt in a pid namespace where these have to stay free; behind all
 * of them where that is possible.
 */
export function freePid(
  wanted: ReadonlySet<number>,
  most = Number(Deno.readTextFileSync("/proc/sys/kernel/pid_max")),
): number {
  const ids = [...wanted, 1, most].sort((a, b) => a - b);
  for (let i = ids.length - 1; i > 0; i--) {
    if (ids[i - 1] + OWN_IDS < ids[i]) return ids[i - 1] + 1;
  }
  return 0;
}

/** What they held, in those that ckpt is in by now. */
export async function restoreNamespaces(
  { set, processes: [{ ids }] }: TreeImages,
): Promise<void> {
  if (isEntered("net")) {
    const { net_ns_id } = ids;
    restoreNetwork(
      set.read("netdev", net_ns_id) ?? [],
      readAddresses(set, `ifaddr-${net_ns_id}.img`),
      readSysctls(set, net_ns_id),
    );
  }
  if (isEntered("uts")) restoreUts(set.require("utsns", ids.uts_ns_id));
  if (isEntered("ipc")) {
    const queues = set.read("ipcns-msg", ids.ipc_ns_id) ?? [];
    const semaphores = set.read("ipcns-sem", ids.ipc_ns_id) ?? [];
    const { restoreQueues } = await import("../ns/sysv_queues.ts");
    restoreQueues(queues);
    const { restoreSemaphores } = await import("../ns/sysv_semaphores.ts");
    restoreSemaphores(semaphores);
    // What is there may be beyond the limits of today.
    restoreIpcLimits(set.require("ipcns-var", ids.ipc_ns_id));
  }
}

function readAddresses(set: ImageSet, name: string): Address[] {
  return set.size(name) === undefined
    ? []
    : parseAddresses(Deno.readFileSync(set.path(name)), name);
}

/** All of them, or those that an image of CRIU has. */
function readSysctls(
  set: ImageSet,
  id: number | undefined,
): [path: string, value: string][] {
  const all = set.read("ckpt-sysctls", undefined);
  if (all !== undefined) {
    return all.map(({ name, value }) => [`/proc/sys/${name}`, value]);
  }
  const { conf4, conf6, unix, ipv4 } = SYSCTL_LISTS;
  const namespace = set.read("netns", id);
  return [
    ...sysctlValues(conf4, namespace?.all_conf4 ?? [], "all"),
    ...sysctlValues(conf4, namespace?.def_conf4 ?? [], "default"),
    ...sysctlValues(conf6, namespace?.all_conf6 ?? [], "all"),
    ...sysctlValues(conf6, namespace?.def_conf6 ?? [], "default"),
    ...sysctlValues(unix, namespace?.unix_conf ?? []),
    ...sysctlValues(ipv4, namespace?.ipv4_sysctl ?? []),
    ...(set.read("netdev", id) ?? []).flatMap((
      { name, conf4: v4, conf6: v6 },
    ) => [
      ...sysctlValues(conf4, v4, name),
      ...sysctlValues(conf6, v6, name),
    ]),
  ];
}
