/** Checks file locks. */
import { imageName } from "../kinds.ts";
import { LARGEST_FILE } from "./file_table.ts";
import type { Findings } from "./findings.ts";
import type { TreeTask } from "./tree.ts";

/** With the bits of LOCK_MAND, which flocks of older kernels have. */
const HIGHEST_LOCK_TYPE = 0xff;

/** File locks, each by a descriptor of a process. */
export function checkLocks(findings: Findings, tasks: TreeTask[]): void {
  const locks = findings.read("filelocks", undefined) ?? [];
  if (locks.length === 0) return;
  const tables = new Map(
    tasks.flatMap(({ entry: { pid }, ids, dead }) =>
      dead || ids === undefined ? [] : [[
        pid,
        new Set(
          (findings.read("fdinfo", ids.files_id) ?? []).map(({ fd }) => fd),
        ),
      ]]
    ),
  );
  locks.forEach(({ flag, type, pid, fd, start, len }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("filelocks"), number, field, why);
    if (![1, 2, 4, 8].includes(flag)) wrong("flag", `${flag} is no lock`);
    if (type > HIGHEST_LOCK_TYPE) wrong("type", `${type} is no type of lock`);
    const table = tables.get(pid);
    if (table === undefined) wrong("pid", `${pid} is no process that lives`);
    else if (!table.has(fd)) wrong("fd", `process ${pid} has no such one`);
    if (start < 0n || len < 0n || start + len > LARGEST_FILE) {
      wrong("start", `${start}, ${len} bytes, is no part of a file`);
    }
  });
}
