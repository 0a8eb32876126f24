/**
 * What has to be known before the first process exists: what this host gives a
 * new task, whether the image fits that, and how much room the agent needs.
 */
import { CkptError, type Reason } from "../error.ts";
import { pageCount } from "../image/pagemap.ts";
import {
  hasCapability,
  readLimits,
  readLoginuid,
  readOomScoreAdj,
  readPersonality,
  readStatus,
} from "../proc/read.ts";
import type { Limit } from "../proc/limits.ts";
import {
  requireCapabilities,
  type StartingCredentials,
} from "../task/credentials.ts";
import { intervalTimerProblems } from "../task/interval_timers.ts";
import { pendingSignalProblems } from "../task/pending_signals.ts";
import {
  canCreateTimersById,
  posixTimerProblems,
} from "../task/posix_timers.ts";
import {
  parseCoredumpFilter,
  processProblems,
  type ProcessReadings,
} from "../task/process_attributes.ts";
import {
  limitsThatCannotBeRaised,
  resourceLimitProblems,
} from "../task/resource_limits.ts";
import { schedulingImageProblems } from "../task/scheduling.ts";
import { chainOf } from "../task/seccomp.ts";
import { signalActionProblems } from "../task/signal_actions.ts";
import { threadAttributeProblems } from "../task/thread_attributes.ts";
import { objectProblems } from "../files/object_images.ts";
import { memfdProblems } from "./memfds.ts";
import type { RestoreOptions } from "./options.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";
import { type Births, planBirthsOf } from "./births.ts";
import { planWatches, type WatchPlan } from "./watches.ts";

/** What ckpt has and a new task inherits, and what this host can do. */
export interface Host {
  readonly credentials: StartingCredentials;
  readonly limits: readonly Limit[];
  readonly readings: ProcessReadings;
  /** Whether the kernel makes timers with a wanted id. */
  readonly exactTimerIds: boolean;
  readonly hasSysResource: boolean;
  /** A new task has its credentials from birth, and may nothing more. */
  readonly isWithoutRights?: true;
}

export interface TreePlan {
  readonly reasons: readonly Reason[];
  readonly host: Host;
  readonly births: Births;
  readonly watches: WatchPlan;
  /** Pages to be filled. */
  readonly pages: bigint;
}

const RLIMIT_NOFILE = 7;

function readHost(): Host {
  return {
    credentials: {
      ...readStatus(Deno.pid),
      lastCapability: Number(
        Deno.readTextFileSync("/proc/sys/kernel/cap_last_cap"),
      ),
    },
    // The agent starts with the hard limit of descriptors as its soft one too.
    limits: readLimits(Deno.pid).map((limit) =>
      limit.resource === RLIMIT_NOFILE ? { ...limit, soft: limit.hard } : limit
    ),
    readings: {
      personality: readPersonality(Deno.pid),
      oomScoreAdj: readOomScoreAdj(Deno.pid),
      loginuid: readLoginuid(Deno.pid),
      coredumpFilter: readOwnCoredumpFilter(),
    },
    exactTimerIds: canCreateTimersById(),
    hasSysResource: hasCapability("CAP_SYS_RESOURCE"),
  };
}

export function planTree(
  images: TreeImages,
  options: RestoreOptions,
): TreePlan {
  const host = readHost();
  const [root] = images.tree;
  const reasons = images.processes.flatMap((process) =>
    taskProblems(process, host)
  );
  const ownSession = root.sid === root.pid;
  if (!ownSession && !options.shellJob) {
    reasons.push({
      object: `task ${root.pid}`,
      why: `it was part of session ${root.sid} of the outside`,
      remedy: "give --shell-job: it joins the session of ckpt",
    });
  }
  reasons.push(
    ...memfdProblems(images.memfds),
    ...objectProblems(images.files),
  );
  const births = planBirthsOf(images);
  const watches = planWatches(images);
  reasons.push(...births.reasons, ...watches.reasons);
  return {
    reasons,
    host,
    births,
    watches,
    pages: images.processes.reduce(
      (sum, { pagemap }) =>
        pagemap.entries.reduce(
          (pages, entry) => pages + BigInt(pageCount(entry)),
          sum,
        ),
      0n,
    ),
  };
}

/** What the kernel would not take of one process. */
function taskProblems(images: TaskImages, host: Host): Reason[] {
  const { pid, threads } = images;
  const { limits, readings, exactTimerIds, hasSysResource } = host;
  const reasons: Reason[] = [];
  const [leader] = threads;
  const task = leader.core.tc!;
  const object = `core-${pid}.img, entry 0`;
  const owner = { pid, tids: threads.map(({ tid }) => tid) };
  const rlimits = task.rlimits?.rlimits ?? [];
  reasons.push(
    ...signalActionProblems(task.sigactions, object),
    ...pendingSignalProblems(
      task.signals_s?.signals ?? [],
      `${object}, field tc.signals_s`,
    ),
    ...processProblems(task, readings, hasSysResource, object),
    ...resourceLimitProblems(rlimits, limits, `${object}, field tc.rlimits`),
    ...limitsThatCannotBeRaised(rlimits, limits, hasSysResource),
  );
  if (task.timers !== undefined) {
    const field = `${object}, field tc.timers`;
    reasons.push(
      ...intervalTimerProblems(task.timers, field),
      ...posixTimerProblems(task.timers.posix, owner, exactTimerIds, field),
    );
  }
  for (const { tid, core } of threads) {
    const field = `core-${tid}.img, entry 0, field thread_core`;
    const thread = core.thread_core!;
    reasons.push(
      ...schedulingImageProblems(thread, field),
      ...threadAttributeProblems(thread, field),
      ...pendingSignalProblems(thread.signals_p?.signals ?? [], field),
    );
    reasons.push(...reasonsOf(() => {
      requireCapabilities(thread.creds!, host.credentials, tid);
      if (thread.seccomp_filter !== undefined && thread.seccomp_mode === 2) {
        chainOf(images.seccomp, thread.seccomp_filter);
      }
    }));
  }
  return reasons;
}

function reasonsOf(check: () => void): readonly Reason[] {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof CkptError) return error.reasons;
    throw error;
  }
}

function readOwnCoredumpFilter(): number | undefined {
  try {
    return parseCoredumpFilter(
      Deno.readTextFileSync("/proc/self/coredump_filter"),
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
