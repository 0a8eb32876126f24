/** What a dump would do, found out without stopping or writing anything. */
import type { Reason } from "../error.ts";
import { pathExists } from "../ffi/path_exists.ts";
import { isReadOnly } from "../ghost/calls.ts";
import { imageName } from "../image/kinds.ts";
import { parseMemoryUse } from "../proc/memory_use.ts";
import type { PlannedProcess } from "./options.ts";
import type { TreeSurvey } from "./survey_tree.ts";

export function plannedProcesses({ seen }: TreeSurvey): PlannedProcess[] {
  return seen.processes.map(({ pid, tid, threads, status }) => ({
    pid,
    name: status.name,
    threads: threads.length,
    memory: memoryOf(tid),
  }));
}

function memoryOf(tid: number): number {
  try {
    return parseMemoryUse(Deno.readTextFileSync(`/proc/${tid}/status`));
  } catch (error) {
    // It ended meanwhile.
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Why no image could be written to a directory, as far as can be seen. */
export function directoryReasons(
  directory: string,
  replace: boolean,
): Reason[] {
  const parent = directory.slice(0, directory.lastIndexOf("/")) || "/";
  const nearest = pathExists(directory) ? directory : parent;
  if (!pathExists(nearest)) {
    return [{
      object: directory,
      why: `cannot be made: there is no ${parent}`,
      remedy: "make it first, or name another directory",
    }];
  }
  if (isReadOnly(nearest)) {
    return [{
      object: directory,
      why: "its file system is mounted read-only",
      remedy: "name another directory",
    }];
  }
  if (!replace && pathExists(`${directory}/${imageName("inventory")}`)) {
    return [{
      object: directory,
      why: "holds another image",
      remedy: "name another directory, or replace it with --replace",
    }];
  }
  return [];
}
