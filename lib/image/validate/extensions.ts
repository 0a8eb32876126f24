/** Checks what lies beside CRIU's images about a task: ckpt-task-PID.img. */

import { imageName } from "../kinds.ts";
import { PAGE_SIZE } from "../pagemap.ts";
import type { ckpt_inherited_entry, ckpt_task_entry } from "../schema.gen.ts";
import type { Findings } from "./findings.ts";
import { TASK_STATE, type TreeTask } from "./tree.ts";

const LAST_SIGNAL = 64;
const NO_ID = 0xffff_ffff;
/** flock(2) */
const [LOCK_SH, LOCK_EX] = [1, 2];
const PAGE = BigInt(PAGE_SIZE);
const LARGEST_ID = 0x7fff_ffff;
/** SEMAEM of linux/sem.h. */
const isAdjustment = (one: number) => Math.abs(one) <= 32767;

/** Notes something about a field of the entry at hand. */
type Wrong = (field: string, why: string) => void;

export function checkExtensions(
  findings: Findings,
  tasks: readonly TreeTask[],
): void {
  for (const task of tasks) {
    const { pid } = task.entry;
    const extension = findings.read("ckpt-task", pid);
    if (extension === undefined) continue;
    const state = findings.read("core", pid)?.tc?.task_state;
    checkTask(
      extension,
      task,
      state,
      (field, why) => findings.add(imageName("ckpt-task", pid), 0, field, why),
    );
  }
}

function checkTask(
  extension: ckpt_task_entry,
  { entry, parent, dead }: TreeTask,
  state: number | undefined,
  wrong: Wrong,
): void {
  const { threads, exit_signal = 0, stop_unreported, ended } = extension;
  const { inherited, ended_leader, continue_unreported } = extension;
  const { parent_thread, awaited, areas, semaphore_undos } = extension;
  const tids = new Set(dead ? [] : entry.threads);
  threads.forEach(({ tid }, i) => {
    if (tids.delete(tid)) return;
    wrong(
      `threads[${i}].tid`,
      `${tid} is there twice, or no thread of the process`,
    );
  });
  if (exit_signal > LAST_SIGNAL) {
    wrong("exit_signal", `${exit_signal} is no signal`);
  }
  if (stop_unreported && state !== TASK_STATE.stopped) {
    wrong("stop_unreported", "is said of a process that is not stopped");
  }
  if (continue_unreported && state !== TASK_STATE.alive) {
    wrong("continue_unreported", "is said of a process that does not run");
  }
  const siblings = parent?.entry.threads.slice(1) ?? [];
  if (parent_thread !== undefined && !siblings.includes(parent_thread)) {
    wrong("parent_thread", `${parent_thread} is no other thread of its parent`);
  }
  if (awaited && (dead || parent === undefined || parent.dead)) {
    wrong("awaited", "is said of a process that has ended, or is the root");
  }
  if (ended !== undefined) {
    if (!dead) wrong("ended", "is said of a process that has not ended");
    for (const [name, id] of Object.entries(ended)) {
      // setresuid(2), setresgid(2): leaves the id as it is.
      if (id === NO_ID) wrong(`ended.${name}`, `${id} is no id`);
    }
  }
  if (ended_leader !== undefined) {
    const { status } = ended_leader;
    if (dead || entry.threads.length < 2) {
      wrong("ended_leader", "is said of a process that has no other thread");
    }
    if ((status & ~0xff00) !== 0) {
      wrong(
        "ended_leader.status",
        `0x${status.toString(16)} is not of exit(2)`,
      );
    }
  }
  const child = parent !== undefined && !parent.dead && !dead;
  for (
    const field of [
      "shares_io_context",
      "shares_semaphore_undo",
      "inherited",
    ] as const
  ) {
    if (!extension[field] || child) continue;
    wrong(field, "is said of a process that has ended, or is the root");
  }
  if (semaphore_undos !== undefined) {
    if (dead) wrong("semaphore_undos", "is said of a process that has ended");
    semaphore_undos.sets.forEach(({ set, adjustments }, i) => {
      if (set <= LARGEST_ID && adjustments.every(isAdjustment)) return;
      wrong(`semaphore_undos.sets[${i}]`, "is no set, or no change of one");
    });
  }
  areas.forEach(({ flock }, i) => {
    if (flock === undefined || flock === LOCK_SH || flock === LOCK_EX) return;
    wrong(`areas[${i}].flock`, `${flock} is no operation of flock(2)`);
  });
  if (inherited !== undefined) checkRanges(inherited, wrong);
}

function checkRanges({ ranges }: ckpt_inherited_entry, wrong: Wrong): void {
  let last = 0n;
  ranges.forEach(({ start, end }, i) => {
    const field = `inherited.ranges[${i}]`;
    if (start % PAGE !== 0n || end % PAGE !== 0n) {
      wrong(field, "is not page aligned");
    }
    if (end <= start) wrong(field, "is empty");
    if (start < last) wrong(field, "does not come after the one before");
    last = end;
  });
}
