/**
 * Checks the process tree: pids, threads, groups, object ids. Which sessions
 * can be made again is for the plan of births to say (lib/task/births.ts).
 */

import { imageName } from "../kinds.ts";
import { LIMITS } from "../limits.ts";
import type { pstree_entry, task_kobj_ids_entry } from "../schema.gen.ts";
import type { Findings } from "./findings.ts";

/** PID_MAX_LIMIT of include/linux/threads.h on 64-bit machines. */
const PID_MAX = 4 * 1024 * 1024;

/** Values of task_core_entry.task_state. */
export const TASK_STATE = { alive: 1, dead: 2, stopped: 3 } as const;

/** A process of the tree, and where it stands in pstree.img. */
export interface TreeTask {
  entry: pstree_entry;
  /** Its number in pstree.img. */
  number: number;
  parent: TreeTask | undefined;
  /** How many ancestors it has. */
  depth: number;
  dead: boolean;
  /** Undefined for a zombie, or when its image is missing or damaged. */
  ids: task_kobj_ids_entry | undefined;
}

const PSTREE = imageName("pstree");

/** @returns the tasks, as far as they can be made out */
export function checkTree(findings: Findings): TreeTask[] {
  const entries = findings.require("pstree", undefined);
  if (entries === undefined) return [];
  if (entries.length === 0) {
    findings.add(PSTREE, undefined, "", "holds no process");
  }
  const tasks = linkTasks(findings, entries);
  checkThreadIds(findings, tasks);
  const byPid = new Map(tasks.map((task) => [task.entry.pid, task]));
  for (const task of tasks) checkGroup(findings, task, byPid);
  checkObjectIds(findings, tasks);
  return tasks;
}

function linkTasks(findings: Findings, entries: pstree_entry[]): TreeTask[] {
  const byPid = new Map<number, TreeTask>();
  let root: TreeTask | undefined;
  entries.forEach((entry, number) => {
    const { pid, ppid } = entry;
    const parent = byPid.get(ppid);
    const depth = parent === undefined ? 0 : parent.depth + 1;
    const task: TreeTask = {
      entry,
      number,
      parent,
      depth,
      dead: false,
      ids: undefined,
    };
    if (pid < 1 || pid > PID_MAX) {
      findings.add(PSTREE, number, "pid", `${pid} is no process id`);
    }
    for (const field of ["pgid", "sid"] as const) {
      if (entry[field] <= PID_MAX) continue;
      findings.add(PSTREE, number, field, `${entry[field]} is no process id`);
    }
    if (byPid.has(pid)) {
      findings.add(PSTREE, number, "pid", `${pid} is there twice`);
    }
    if (ppid === 0) {
      if (root) findings.add(PSTREE, number, "ppid", "is a second root");
      root ??= task;
    } else if (parent === undefined) {
      findings.add(PSTREE, number, "ppid", `${ppid} does not come before it`);
    }
    if (depth === LIMITS.generations) {
      findings.add(
        PSTREE,
        number,
        "ppid",
        `is more than ${LIMITS.generations} generations below the root`,
      );
    }
    if (depth < LIMITS.generations) byPid.set(pid, task);
  });
  if (root === undefined && entries.length > 0) {
    findings.add(PSTREE, undefined, "ppid", "no process is the root");
  }
  const tasks = [...byPid.values()];
  for (const task of tasks) {
    const core = findings.require("core", task.entry.pid);
    task.dead = core?.tc?.task_state === TASK_STATE.dead;
  }
  return tasks;
}

/** Leader first; no id may be taken when a thread is to get it. */
function checkThreadIds(findings: Findings, tasks: TreeTask[]): void {
  const taken = new Set<number>();
  for (const { entry } of tasks) {
    taken.add(entry.pid).add(entry.sid).add(entry.pgid);
  }
  for (const { entry, number, dead } of tasks) {
    const wrong = (why: string) => findings.add(PSTREE, number, "threads", why);
    // What a zombie has there means nothing, but one element there must be.
    if (dead) {
      if (entry.threads.length !== 1) wrong("a dead process has one element");
      continue;
    }
    const [leader, ...others] = entry.threads;
    if (leader !== entry.pid) wrong(`does not begin with ${entry.pid}`);
    for (const tid of others) {
      if (tid < 1 || tid > PID_MAX) wrong(`${tid} is no thread id`);
      else if (taken.has(tid)) wrong(`${tid} is taken by another task`);
      taken.add(tid);
    }
  }
}

/** setpgid(2) only joins groups of the same session. */
function checkGroup(
  findings: Findings,
  task: TreeTask,
  byPid: Map<number, TreeTask>,
): void {
  const { number, entry: { pid, pgid, sid } } = task;
  if (pgid === pid || pgid === 0) return;
  const leader = byPid.get(pgid);
  if (leader === undefined || leader.entry.sid === sid) return;
  findings.add(PSTREE, number, "pgid", `${pgid} is in another session`);
}

const NAMESPACE_IDS = [
  "pid_ns_id",
  "net_ns_id",
  "ipc_ns_id",
  "uts_ns_id",
  "mnt_ns_id",
  "user_ns_id",
  "cgroup_ns_id",
  "time_ns_id",
] as const;

function checkObjectIds(findings: Findings, tasks: TreeTask[]): void {
  const { root_ids } = findings.set.inventory;
  if (root_ids === undefined) return;
  for (const task of tasks) {
    if (task.dead) continue;
    task.ids = findings.require("ids", task.entry.pid);
  }
  for (const task of tasks) {
    if (task.ids === undefined) continue;
    if (task.parent === undefined) checkRootIds(findings, task, root_ids);
    else checkChildIds(findings, task, root_ids, tasks[0].ids);
  }
}

function checkRootIds(
  findings: Findings,
  task: TreeTask,
  dumper: task_kobj_ids_entry,
): void {
  const { pid } = task.entry;
  const ids = task.ids!;
  const file = imageName("ids", pid);
  if (ids.files_id === dumper.files_id) {
    findings.add(file, 0, "files_id", "is that of the process that dumped");
  }
  for (const field of NAMESPACE_IDS) {
    if (ids[field] !== undefined && dumper[field] === undefined) {
      findings.add(
        imageName("inventory"),
        0,
        `root_ids.${field}`,
        `is missing, but process ${pid} has one`,
      );
    }
  }
  const own = (ids.pid_ns_id ?? 0) !== (dumper.pid_ns_id ?? 0);
  const external = findings.read("pidns", ids.pid_ns_id ?? 0)?.ext_key;
  if (own && pid !== 1 && external === undefined) {
    findings.add(file, 0, "pid_ns_id", "is new, but the root is not process 1");
  }
  if (!own && pid === 1) {
    findings.add(file, 0, "pid_ns_id", "is not new, but the root is process 1");
  }
  const different = (field: typeof NAMESPACE_IDS[number]) =>
    ids[field] !== undefined && ids[field] !== dumper[field];
  if (different("uts_ns_id")) findings.require("utsns", ids.uts_ns_id);
  if (different("ipc_ns_id")) findings.require("ipcns-var", ids.ipc_ns_id);
  if (different("user_ns_id")) findings.require("userns", ids.user_ns_id);
  if (different("time_ns_id")) findings.require("timens", ids.time_ns_id);
}

/**
 * Only mount and net namespaces may be nested: net ones in one that the root
 * has.
 */
function checkChildIds(
  findings: Findings,
  task: TreeTask,
  dumper: task_kobj_ids_entry,
  root: task_kobj_ids_entry | undefined,
): void {
  const parent = task.parent?.ids;
  if (parent === undefined || root === undefined) return;
  const ids = task.ids!;
  for (const field of NAMESPACE_IDS) {
    if ((ids[field] ?? 0) === (parent[field] ?? 0)) continue;
    if (
      field === "mnt_ns_id" ||
      field === "net_ns_id" && root[field] !== dumper[field]
    ) continue;
    findings.add(
      imageName("ids", task.entry.pid),
      0,
      field,
      "differs from the parent's, which cannot be restored",
    );
  }
}
