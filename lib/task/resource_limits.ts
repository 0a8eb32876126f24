/** Resource limits: prlimit(2) and `task_rlimits_entry`. */
import type { Reason } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import type { rlimit_entry, task_rlimits_entry } from "../image/schema.gen.ts";
import { type Limit, RLIM_INFINITY } from "../proc/limits.ts";

/** @param limits as in /proc/PID/limits: the index is the RLIMIT_* number */
export function dumpResourceLimits(
  limits: readonly Limit[],
): task_rlimits_entry {
  return {
    rlimits: limits.map(({ soft, hard }) => ({ cur: soft, max: hard })),
  };
}

/** A limit to set. */
interface Change {
  readonly current: Limit;
  readonly soft: bigint;
  readonly hard: bigint;
}

/**
 * The limits that differ. An image may hold fewer than the kernel has: the
 * rest stays. Where it holds a soft limit above the hard one, the hard one is
 * meant, as in CRIU.
 */
function changes(
  wanted: readonly rlimit_entry[],
  current: readonly Limit[],
): Change[] {
  return current.slice(0, wanted.length).map((now, resource) => {
    const { cur, max } = wanted[resource];
    return { current: now, soft: cur < max ? cur : max, hard: max };
  }).filter(({ current, soft, hard }) =>
    current.soft !== soft || current.hard !== hard
  );
}

/**
 * Hard limits above those of the host, which take CAP_SYS_RESOURCE in the
 * initial user namespace to be set (`do_prlimit` in kernel/sys.c).
 *
 * @param wanted `task_rlimits_entry.rlimits`
 * @param current what a restored task has before its limits are set
 */
export function limitsThatCannotBeRaised(
  wanted: readonly rlimit_entry[],
  current: readonly Limit[],
  hasSysResource: boolean,
): Reason[] {
  if (hasSysResource) return [];
  return changes(wanted, current)
    .filter(({ current, hard }) => hard > current.hard)
    .map(({ current, hard }) => ({
      object: `the limit "${current.name}"`,
      why: `the program has ${shown(hard)}, here at most ` +
        `${shown(current.hard)} are allowed`,
      remedy: "give ckpt CAP_SYS_RESOURCE, or start it with that limit " +
        "(prlimit(1), ulimit -H)",
    }));
}

/** @param object "core-12.img, entry 0, field tc.rlimits" */
export function resourceLimitProblems(
  wanted: readonly rlimit_entry[],
  current: readonly Limit[],
  object: string,
): Reason[] {
  if (wanted.length <= current.length) return [];
  return [{
    object: `${object}.rlimits`,
    why: `it holds ${wanted.length} limits, the kernel has ${current.length}`,
    remedy: "dump the program again; the image is damaged",
  }];
}

/** Sets the limits that differ from what the task has. */
export function restoreResourceLimits(
  program: Program,
  wanted: readonly rlimit_entry[],
  current: readonly Limit[],
): void {
  for (const { current: now, soft, hard } of changes(wanted, current)) {
    program.call(
      "prlimit64",
      [0, now.resource, program.words([soft, hard]), 0],
      `setting the limit "${now.name}" to ${shown(soft)}, at most ` +
        shown(hard),
    );
  }
}

function shown(value: bigint): string {
  return value === RLIM_INFINITY ? "unlimited" : `${value}`;
}
