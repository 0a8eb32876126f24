/** Tasks that get descriptors as a restore gives them, on the real kernel. */
import { Program } from "../../ffi/program.ts";
import type { fdinfo_entry, file_entry } from "../../image/schema.gen.ts";
import { AgentTask } from "../../task/testing/agent_task.ts";
import type { ObjectImages } from "../object_images.ts";
import {
  type DescriptorTable,
  emptyPrograms,
  restoreDescriptors,
} from "../restore_descriptors.ts";
import { armTimerfds } from "../timerfd.ts";

/** Above all numbers that tests use. */
const BASE = 200;

/**
 * @param numbers ids of files by their descriptors, for each task
 * @param use what to do while the tasks have them
 */
export function withRestored<T>(
  files: readonly file_entry[],
  numbers: readonly Readonly<Record<number, number>>[],
  use: (pids: readonly number[]) => T,
  {
    objects = undefined as ObjectImages | undefined,
    now = (_: number): bigint => 0n,
  } = {},
): T {
  const byId = new Map(files.map((file) => [file.id, file]));
  const tasks = numbers.map(() => new AgentTask());
  try {
    const tables = tasks.map(({ pid }, i): DescriptorTable => ({
      pid,
      filesId: pid,
      entries: entriesOf(byId, numbers[i]),
      programs: emptyPrograms(),
    }));
    for (const { programs: { open } } of tables) {
      open.call("close", [0], "closing the lifeline");
    }
    restoreDescriptors(
      tables,
      {
        files: byId,
        pipes: new Map(),
        fifos: new Map(),
        unconnected: new Set(),
        external: new Set(),
        objects,
      },
      new Map(),
      { base: BASE, free: BASE },
    );
    const phase = (name: "open" | "fetch" | "finish") =>
      tasks.forEach((task, i) => task.run(tables[i].programs[name]));
    phase("open");
    phase("fetch");
    tasks.forEach((task, i) => {
      const { watch, disarmed } = tables[i].programs;
      const outcome = task.run(watch);
      const rest = new Program();
      for (const { fired, quieten } of disarmed) {
        if (outcome.result(fired) === 0n) quieten(rest);
      }
      rest.call("close_range", [BASE, 0xffff_ffff, 0], "closing the rest");
      task.run(rest);
    });
    phase("finish");
    const timers = armTimerfds(
      tables.map(({ pid, entries }) => ({ pid, descriptors: entries })),
      byId,
      now,
    );
    for (const task of tasks) {
      const program = timers.get(task.pid);
      if (program !== undefined) task.run(program);
    }
    return use(tasks.map(({ pid }) => pid));
  } finally {
    for (const task of tasks) task[Symbol.dispose]();
  }
}

function entriesOf(
  files: ReadonlyMap<number, file_entry>,
  numbers: Readonly<Record<number, number>>,
): fdinfo_entry[] {
  return Object.entries(numbers).map(([fd, id]) => ({
    fd: Number(fd),
    id,
    flags: 0,
    type: files.get(id)!.type,
  }));
}
