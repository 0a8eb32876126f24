/**
 * The way of a restore: read and check everything, start the agent, let it
 * become the programs, and let all threads go on at one moment, or none.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { encodeImage } from "../image/framing.ts";
import { canBindAside, isSplit } from "../files/unix_paths.ts";
import { locksOfPaths } from "./locks_of_paths.ts";
import { takenLocks } from "../files/taken_locks.ts";
import { takenAddresses } from "../files/taken_addresses.ts";
import { readImageSet } from "../image/image_set.ts";
import { validateImageSet } from "../image/validate/mod.ts";
import type {
  reg_file_entry,
  restore_stats_entry,
} from "../image/schema.gen.ts";
import type { SegmentsPlan } from "../mm/sysv_segments.ts";
import { failIfRefused } from "../ns/enter.ts";
import { atTheEnd, inside, isEntered, wayToMounts } from "../ns/inside.ts";
import type { EnteredKind } from "../ns/kinds.ts";
import type { Report } from "../report.ts";
import { buildTree } from "./build_tree.ts";
import { changedFiles } from "./changed_files.ts";
import { otherVdso } from "./check_host.ts";
import { chooseConnections, RestoredConnections } from "./connections.ts";
import { chooseGiven, releaseGiven } from "./given_descriptors.ts";
import { semaphoreProblems } from "../task/semaphore_undo.ts";
import { hasOwnMounts } from "./mount_services.ts";
import {
  announce,
  enterNamespaces,
  ownKinds,
  restoreNamespaces,
} from "./namespaces.ts";
import type { RestoreOptions, RestoreResult } from "./options.ts";
import { unsupportedNetwork } from "./network_images.ts";
import { planTree, type TreePlan } from "./plan.ts";
import { planSegmentsOf } from "./sysv_segments.ts";
import {
  hasOwnObjects,
  readTreeImages,
  type TreeImages,
} from "./task_images.ts";
import { takenTerminals } from "./terminals.ts";
import { takenIds } from "./taken_ids.ts";
import { waitForTask } from "./wait.ts";

/**
 * Restores a process tree from its images.
 *
 * @throws CkptError; nothing of the program is left then
 */
export async function restore(
  options: RestoreOptions,
  report: Report,
): Promise<RestoreResult> {
  const action = `restoring from ${options.imagesDirectory}`;
  failIfRefused(action);
  const started = performance.now();
  report.log(3, `reading the images in ${options.imagesDirectory}`);
  const set = readImageSet(options.imagesDirectory);
  validateImageSet(set);
  const images = chooseConnections(readTreeImages(set), options);
  const own = new Set(ownKinds(set, images.processes[0]));
  await enterOwn(images, own, options, action);
  /** Whether what this host has of that kind is what the tree will have. */
  const known = (kind: EnteredKind) => !own.has(kind) || isEntered(kind);
  using mounts = hasOwnMounts(images)
    ? new (await import("./mounts.ts")).TreeMounts(images, options)
    : undefined;
  if (mounts?.reasons.length === 0 && !options.dryRun) await mounts.make();
  const given = chooseGiven(images, options);
  const plan = planTree(images, options);
  const taken = known("pid")
    ? await takenIds(images, inside() === undefined)
    : [];
  // When those that were dumped are gone, and with them what they held.
  using connections = RestoredConnections.prepare(images);
  const prefix = mounts === undefined && !options.dryRun ? wayToMounts() : "";
  const wayTo = (entry: reg_file_entry) =>
    mounts === undefined ? prefix + entry.name : mounts.wayTo(entry);
  const segments = planSegmentsOf(images);
  const reasons: Reason[] = [
    ...mounts === undefined ? refusedRoot(options.root) : mounts.reasons,
    ...given.reasons,
    ...otherVdso(images.processes),
    ...plan.reasons,
    ...await vforkReasons(images, plan),
    ...taken,
    ...segments.reasons,
    ...own.has("ipc") ? [] : await heldSemaphores(images),
    ...known("net")
      ? takenAddresses(images.sockets, {
        bindsAside: canBindAside(images.processes),
        isSplit: isSplit(images.processes),
        rootOf: (mount) => mounts?.rootOfSocket(mount) ?? "own",
      })
      : [],
    ...connections.problems,
    ...takenLocks(locksOfPaths(images, given, wayTo)),
    ...takenTerminals(images.terminals, wayTo),
    ...await ownObjectProblems(images),
  ];
  // Last, for others see it: only what is in them may still be wrong.
  using putBack = options.fromSnapshot && reasons.length === 0
    ? (await import("./put_back.ts")).PutBack.start(set)
    : undefined;
  // Those of subvolumes that were put back show what these were before.
  if (putBack !== undefined && !options.dryRun) await mounts?.make();
  if (putBack !== undefined || !options.fromSnapshot) {
    const changed = await changedFiles(
      images,
      new Set(given.byFile.keys()),
      options.fileValidation,
      wayTo,
      mounts?.clone,
      putBack !== undefined,
    );
    reasons.unshift(...changed);
  }
  if (options.dryRun) {
    const { planOf } = await import("./dry_run.ts");
    const plan = { ...planOf(images, reasons), mounts: mounts?.steps ?? [] };
    return { pid: images.tree[0].pid, plan };
  }
  refuse(action, reasons);
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  const planned = performance.now();
  warnOfLostSharers(segments, report);
  if (connections.areBlockedByIptables) warnOfIptables(report);
  const pid = await buildTree(
    images,
    plan,
    given,
    segments,
    connections,
    mounts,
    (entry) => wayTo(entry)!,
    options,
    report,
  );
  putBack?.keep(report);
  releaseGiven(given, options);
  const figures = {
    pages_compared: 0n,
    pages_skipped_cow: 0n,
    forking_time: micros(planned - started),
    restore_time: micros(performance.now() - started),
    pages_restored: plan.pages,
  };
  writeFigures(figures, options, report);
  report.log(
    3,
    images.processes.length === 1
      ? `task ${pid} goes on`
      : `${images.processes.length} processes go on`,
  );
  const place = inside();
  if (place !== undefined) {
    atTheEnd(() => announce(place, options, figures));
    const result = { pid: place.rootOutside };
    return options.detached ? result : { ...result, waitsElsewhere: true };
  }
  if (options.detached) return { pid };
  return { pid, ...await waitForTask(pid, options, report) };
}

/** Goes into the namespaces of the tree's own, which are made for it. */
async function enterOwn(
  images: TreeImages,
  own: ReadonlySet<EnteredKind>,
  options: RestoreOptions,
  action: string,
): Promise<void> {
  if (own.has("net")) {
    const { net_ns_id } = images.processes[0].ids;
    refuse(action, unsupportedNetwork(images.set, net_ns_id));
  }
  if (options.dryRun) return;
  if (!own.has("pid") && own.size > 0 && inside() === undefined) {
    refuse(action, await takenIds(images));
  }
  enterNamespaces(images, [...own], options, action);
  await restoreNamespaces(images);
}

/** Of kinds that few programs have. */
async function ownObjectProblems(images: TreeImages): Promise<Reason[]> {
  if (!hasOwnObjects(images)) return [];
  return (await import("./own_objects.ts")).ownObjectProblems(images);
}

/** Semaphores of the host that processes held with SEM_UNDO. */
async function heldSemaphores({ processes }: TreeImages): Promise<Reason[]> {
  const undos = processes.flatMap(({ extension }) =>
    extension.semaphore_undos?.sets ?? []
  );
  if (undos.length === 0) return [];
  const { dumpSemaphores } = await import("../ns/sysv_semaphores.ts");
  const host = dumpSemaphores()
    .map(({ desc, extra }) => [desc.id, extra] as const);
  return semaphoreProblems(undos, new Map(host));
}

async function vforkReasons(
  images: TreeImages,
  plan: TreePlan,
): Promise<Reason[]> {
  if (!images.processes.some(({ extension }) => extension.awaited)) return [];
  return (await import("./vfork.ts")).vforkProblems(images, plan);
}

function refusedRoot(root: string | undefined): Reason[] {
  return root === undefined || root === "/" ? [] : [{
    object: `--root ${root}`,
    why: "the program had no mount namespace of its own, and so no other root",
    remedy: "leave --root out",
  }];
}

/** @throws CkptError when there are any */
function refuse(action: string, reasons: readonly Reason[]): void {
  if (reasons.length > 0) throw new CkptError(EXIT.refused, action, reasons);
}

function warnOfLostSharers({ make }: SegmentsPlan, report: Report): void {
  for (const { segment: { id, attachedOutside } } of make) {
    if (!attachedOutside) continue;
    report.log(
      2,
      `System V segment ${id} is made again; processes outside the tree that ` +
        "were attached to it are not attached to this one",
    );
  }
}

function warnOfIptables(report: Report): void {
  report.log(
    2,
    "CRIU has blocked the TCP connections by rules of iptables, which ckpt " +
      "does not remove: iptables -S, and iptables -D for those with the " +
      "mark 0xc114",
  );
}

function writeFigures(
  figures: restore_stats_entry,
  { workDirectory }: RestoreOptions,
  report: Report,
): void {
  Deno.writeFileSync(
    `${workDirectory}/stats-restore`,
    encodeImage("stats-restore", { restore: figures }),
    { mode: 0o600 },
  );
  report.stats({ ...figures });
}

function micros(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}
