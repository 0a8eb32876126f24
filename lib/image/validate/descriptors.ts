/** Checks descriptor tables, and the directories of tasks. */
import { O } from "../../ffi/syscall.ts";
import { imageName } from "../kinds.ts";
import { fd_types, type fdinfo_entry } from "../schema.gen.ts";
import { checkObjects } from "./ckpt_files.ts";
import { FILES, type FileTable, HIGHEST_DESCRIPTOR } from "./file_table.ts";
import type { Findings } from "./findings.ts";
import { checkLocks } from "./locks.ts";
import { checkSnapshots } from "./snapshots.ts";
import type { TreeTask } from "./tree.ts";

/** Descriptor tables, and the directories of each task. */
export function checkDescriptors(
  findings: Findings,
  tasks: TreeTask[],
  table: FileTable,
): void {
  checkPidfds(findings, tasks, table);
  const epolls = epollTargets(findings, table);
  const tables: (readonly fdinfo_entry[])[] = [];
  const seen = new Set<number>();
  // An epoll that is only in flight between sockets is in no table.
  const held = new Set<number>();
  const satisfied = new Set<number>();
  for (const { entry: { pid }, ids, dead } of tasks) {
    if (dead) continue;
    checkDirectories(findings, pid, table);
    if (ids === undefined || seen.has(ids.files_id)) continue;
    seen.add(ids.files_id);
    const descriptors = findings.read("fdinfo", ids.files_id) ?? [];
    tables.push(descriptors);
    const numbers = checkTable(findings, ids.files_id, descriptors, table);
    if (epolls.size === 0) continue;
    for (const { id, type } of descriptors) {
      if (type !== fd_types.EVENTPOLL) continue;
      held.add(id);
      if (epolls.get(id)?.every((fd) => numbers.has(fd))) satisfied.add(id);
    }
  }
  checkObjects(findings, table, tables);
  checkSnapshots(findings);
  checkLocks(findings, tasks);
  for (const [id, fds] of epolls) {
    if (!held.has(id) || satisfied.has(id)) continue;
    findings.add(
      FILES,
      undefined,
      "epfd.tfd",
      `epoll ${id} watches ${fds.length}; no table with it has all of them`,
    );
  }
}

/** A process that was waited for has no pid any more. */
const GONE = -1;

function checkPidfds(
  findings: Findings,
  tasks: TreeTask[],
  table: FileTable,
): void {
  const pids = new Set(tasks.map(({ entry: { pid } }) => pid));
  const tids = new Set(
    tasks.flatMap(({ entry, dead }) => dead ? [entry.pid] : entry.threads),
  );
  table.each(fd_types.PIDFD, ({ pidfd }, number) => {
    if (pidfd === undefined || pidfd.nspid === GONE) return;
    const known = (pidfd.flags & O.EXCL) === 0 ? pids : tids;
    if (known.has(pidfd.nspid)) return;
    const why = `${pidfd.nspid} is no process of pstree.img`;
    findings.add(FILES, number, "pidfd.nspid", why);
  });
}

/** The numbers by which what epolls watch is found in a table. */
function epollTargets(
  findings: Findings,
  table: FileTable,
): Map<number, number[]> {
  const extensions = new Map(
    (findings.read("ckpt-files", undefined) ?? []).map(({ id, watched }) => [
      id,
      new Set(watched.map(({ index }) => index)),
    ]),
  );
  const targets = new Map<number, number[]>();
  table.each(fd_types.EVENTPOLL, ({ id, epfd }) => {
    const known = extensions.get(id);
    const own = (epfd?.tfd ?? []).filter((_, index) => !known?.has(index));
    targets.set(id, own.map(({ tfd }) => tfd));
  });
  return targets;
}

/** @returns its numbers */
function checkTable(
  findings: Findings,
  filesId: number,
  descriptors: readonly fdinfo_entry[],
  table: FileTable,
): ReadonlySet<number> {
  const seen = new Set<number>();
  let number = 0;
  const wrong = (field: string, why: string) =>
    findings.add(imageName("fdinfo", filesId), number, field, why);
  for (; number < descriptors.length; number++) {
    const { fd, id, type, flags } = descriptors[number];
    if (seen.size === seen.add(fd).size) wrong("fd", `${fd} is there twice`);
    if (fd > HIGHEST_DESCRIPTOR) wrong("fd", `${fd} is no descriptor`);
    if (flags > 1) wrong("flags", `${flags} is more than FD_CLOEXEC`);
    if (table.known && !table.has(type, id)) {
      wrong("id", `no file ${id} of type ${type} is in files.img`);
    }
  }
  return seen;
}

function checkDirectories(
  findings: Findings,
  pid: number,
  table: FileTable,
): void {
  const fs = findings.require("fs", pid);
  if (fs === undefined) return;
  const file = imageName("fs", pid);
  for (const field of ["cwd_id", "root_id"] as const) {
    if (!table.known || table.has(fd_types.REG, fs[field])) continue;
    findings.add(file, 0, field, `${fs[field]} is no directory of files.img`);
  }
  if ((fs.umask ?? 0) > 0o777) {
    findings.add(file, 0, "umask", `0${fs.umask!.toString(8)} is no umask`);
  }
}
