/** All that is known of a stopped tree, as its images are to say it. */
import { FileTable } from "../files/file_table.ts";
import { TreeSockets } from "../files/sockets.ts";
import { readCgroup } from "../proc/read.ts";
import type { Report } from "../report.ts";
import type { FrozenTree } from "../task/frozen_tree.ts";
import { readStandardScheduling } from "../task/scheduling.ts";
import { askSnapshot, type Collected, conclude } from "./collect.ts";
import { dependedFiles } from "./depended_files.ts";
import { describeFiles, describeFlight } from "./describe_files.ts";
import { DEFAULT_METHODS, recordValidation } from "./file_validation.ts";
import { loadMountWriter } from "./mounts.ts";
import type { DumpOptions } from "./options.ts";
import type { Still } from "./still.ts";
import { confirmAreas } from "./survey.ts";
import type { TreeSurvey } from "./survey_tree.ts";

/** What each process, or its copy, still has to tell, in the order of the tree. */
export function concludeAll(still: Still, report: Report): Collected[] {
  // From where its namespace begins all have to be moved.
  const moved = (still.cgroupNamespace?.roots.length ?? 0) > 0;
  const ownCgroups = moved ? [] : readCgroup(Deno.pid);
  // All answer side by side.
  for (const { asked } of still.processes) {
    if (asked !== undefined) askSnapshot(asked);
  }
  const concluded = new Map<number, Collected>();
  const toldBy = (child: number) => concluded.get(child)!;
  // Children first: they tell what nobody can ask those that wait for them.
  for (const { seen, asked, waiting } of still.processes.toReversed()) {
    if (asked?.snapshot !== undefined) confirmAreas(seen, asked.snapshot.pid);
    const told = asked && conclude(seen, asked, ownCgroups);
    const process = waiting?.conclude(told, toldBy, ownCgroups) ?? told!;
    for (const { tid, unknownCall } of process.threads) {
      if (unknownCall) {
        report.log(
          2,
          `thread ${tid} was in a system call that the kernel had ` +
            "interrupted before, which nobody can name any more: it will " +
            "see EINTR",
        );
      }
    }
    concluded.set(seen.pid, process);
  }
  return still.processes.map(({ seen }) => concluded.get(seen.pid)!);
}

/** @param collected of each process, in the order of the tree */
export async function describeTree(
  survey: TreeSurvey,
  still: Still,
  frozen: FrozenTree,
  collected: readonly Collected[],
  options: DumpOptions,
) {
  const files = new FileTable(still.files, survey.seen.namespaces);
  const sockets = {
    unix: new TreeSockets(still.tables, options).neighbours(),
    connections: still.connections,
  };
  const depended = dependedFiles(
    survey.seen.processes,
    still.files,
    options.external,
    survey.seen.namespaces,
  );
  const described = {
    survey,
    processes: survey.processes.map((seen, i) => ({
      survey: seen,
      stopSignal: frozen.processes[i].stopSignal,
      collected: collected[i],
      files: describeFiles(seen, files, still.memfds.numbers, sockets),
      objects: survey.seen.objects.get(seen.pid)!,
      isAwaited: still.awaited.has(seen.pid),
      semaphoreUndos: still.semaphoreUndos.get(seen.pid),
      flocks: still.flocks.get(seen.pid),
    })),
    flight: describeFlight(survey, files, still.memfds.numbers, sockets),
    files,
    shared: [...still.shared, ...still.memfds.contents],
    memfds: still.memfds.entries,
    pipes: still.pipes,
    contents: still.contents,
    sockets: still.flight.queues,
    moreOfSockets: still.moreOfSockets,
    connections: still.connections,
    terminals: still.terminals,
    tcpClose: options.tcpClose ?? false,
    clocks: still.clocks,
    standard: readStandardScheduling(),
    writeMounts: await loadMountWriter(survey.mounts),
    namespaces: still.namespaces,
    cgroupNamespace: still.cgroupNamespace,
    writeNamespaces: still.writeNamespaces,
  };
  const validation = await recordValidation(
    files.entries,
    new Set(files.remaps.map(({ orig_id }) => orig_id)),
    depended,
    options.fileValidation ?? DEFAULT_METHODS,
    still.fileTimes,
  );
  return { ...described, validation };
}
