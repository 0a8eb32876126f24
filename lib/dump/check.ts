/** Whether a program could be dumped, found out without stopping it. */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { CgroupFreezer } from "../task/cgroup_freezer.ts";
import type { Report } from "../report.ts";
import { missingCapabilities } from "./capabilities.ts";
import { filesOutside, foundFiles } from "./depended_files.ts";
import { caredFiles } from "./lost_files.ts";
import { LazyMounts, surveyWithMounts } from "./mounts.ts";
import { namespaceProblems } from "./namespaces.ts";
import type { CheckOptions, CheckResult } from "./options.ts";
import { placeOf, refusedRoot } from "./place.ts";
import { openWaiters, vforkProblems } from "./prepare.ts";
import { refuseImpossible } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";
import { withRemedyForVanished } from "./vanished.ts";

/**
 * Whether a process could be dumped, and with which options, without stopping
 * it; without a pid, whether this host has what ckpt needs.
 */
export async function check(
  options: CheckOptions,
  report: Report,
): Promise<CheckResult> {
  try {
    const { pid } = options;
    if (pid === undefined) return await checkOnce(options, report);
    const place = placeOf(pid, `checking task ${pid}`);
    const result = await checkOnce({ ...options, pid: place.pid }, report);
    return { ...result, pid: place.pidOutside };
  } catch (error) {
    throw options.pid === undefined
      ? error
      : withRemedyForVanished(error, options.pid);
  }
}

async function checkOnce(
  options: CheckOptions,
  report: Report,
): Promise<CheckResult> {
  await report.letSignalsIn();
  const missing = missingCapabilities();
  const { pid } = options;
  if (pid === undefined) return { reasons: missing, neededOptions: [] };
  refuseImpossible(pid, `checking task ${pid}`);
  using mounts = new LazyMounts(options);
  const survey = await surveyWithMounts(pid, options, mounts);
  if (survey === undefined) {
    throw new CkptError(EXIT.failed, `checking task ${pid}`, [{
      object: `task ${pid}`,
      why:
        "its threads, descriptors or mappings change too fast to be looked " +
        "at while it runs",
      remedy: "ckpt dump looks at it when it is stopped",
    }]);
  }
  const { reasons, neededOptions, seen } = survey;
  const opened = await openWaiters(seen);
  using _waiters = typeof opened === "string" ? undefined : opened;
  const cgroup = options.freezeCgroup === undefined
    ? []
    : CgroupFreezer.open(options.freezeCgroup).reasonsAgainst(pid);
  const { directoryReasons, plannedProcesses } = await import("./dry_run.ts");
  const { imagesDirectory, replace = false } = options;
  const directory = imagesDirectory === undefined ? [] : [
    ...directoryReasons(imagesDirectory, replace),
    ...await guardReasons({ ...options, imagesDirectory }, seen),
  ];
  return {
    pid,
    reasons: [
      ...missing,
      ...refusedRoot(options.root),
      ...reasons,
      ...namespaceProblems(seen),
      ...vforkProblems(seen, opened, {}),
      ...cgroup,
      ...directory,
    ],
    neededOptions: [...new Set([...givenOptions(options), ...neededOptions])],
    files: caredFiles(seen.files, options),
    processes: plannedProcesses(survey),
  };
}

/** Without which the answer could be another one. */
function givenOptions(
  { external, ghostLimit, overlayTrustOptions }: CheckOptions,
): string[] {
  return [
    ...external.map((text) => `--external ${text}`),
    ...ghostLimit === undefined ? [] : [`--ghost-limit ${ghostLimit}`],
    ...overlayTrustOptions ? ["--overlay-trust-options"] : [],
  ];
}

async function guardReasons(
  { freezeFs, snapshot, imagesDirectory, workDirectory, external }:
    & CheckOptions
    & { imagesDirectory: string },
  seen: TreeSighting,
): Promise<Reason[]> {
  const reasons: Reason[] = [];
  const { namespaces } = seen;
  const files = filesOutside(foundFiles(seen, external), external, namespaces);
  if (snapshot === "btrfs") {
    const { snapshotProblems } = await import("./take_snapshot.ts");
    reasons.push(...snapshotProblems(files, namespaces));
  }
  if (freezeFs === undefined) return reasons;
  const { freezeProblems } = await import("./freeze_file_systems.ts");
  return [
    ...reasons,
    ...freezeProblems(files, {
      imagesDirectory,
      workDirectory: workDirectory ?? imagesDirectory,
    }, namespaces),
  ];
}
