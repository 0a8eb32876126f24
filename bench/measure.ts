/** One repetition: a fresh program, dumped while it goes on, dumped and killed, restored, checked. */

import type { Host, Run } from "./host.ts";
import { Load, sleep, type Subject } from "./load.ts";
import { dump, restore, type Tool } from "./tools.ts";

/** How long the program is watched without a dump, and let settle, milliseconds. */
const QUIET = 300;
const SETTLE = 100;

/** Times in milliseconds, sizes in bytes. */
export interface Sample {
  /** Largest gap that the program saw in 300 ms when nothing was done to it. */
  quiet: number;
  /** Largest gap that the program saw during `dump -R`. */
  stop: number;
  /** Sum of all gaps above 0.1 ms during `dump -R`. */
  stopSum: number;
  dumpRunningWall: number;
  dumpRunningPeak: number;
  dumpWall: number;
  /** User and kernel; restore has none, as much of it runs as the program. */
  dumpProcessor: number;
  dumpPeak: number;
  restoreWall: number;
  restorePeak: number;
  imageBytes: number;
  /** By how much `dump -R` made the file system of the images fuller: blocks that files share count once. */
  spaceBytes: number;
  /** Memory that all processes of the program use, before the dump and after the restore. */
  memoryBefore: number;
  memoryAfter: number;
}

export interface Bench {
  host: Host;
  /** Executables by their names in `programs`. */
  programs: Record<Subject["program"], string>;
  /** Directories: small files of the benchmark, always in memory; images. */
  scratch: string;
  images: string;
}

function tail(file: string): string {
  try {
    return Deno.readTextFileSync(file).trimEnd().split("\n").slice(-6)
      .map((line) => `    ${line}`).join("\n");
  } catch {
    return "";
  }
}

/** @throws Error with the ends of the logs when the tool fails */
async function run(
  { host, scratch }: Bench,
  tool: Tool,
  log: string,
  args: string[],
): Promise<Run> {
  await tool.prepare(host);
  const output = `${scratch}/tool.log`;
  Deno.writeTextFileSync(output, "");
  const result = await host.run(output, [tool.executable, ...args]);
  if (result.status !== 0) {
    throw new Error(
      `${tool.executable} ${args.join(" ")}: ` +
        (result.status & 127
          ? `signal ${result.status & 127}`
          : `exit code ${result.status >> 8}`) +
        `\n${tail(output)}\n${tail(log)}`,
    );
  }
  return result;
}

function imageBytes(directory: string): number {
  let bytes = 0;
  for (const { name } of Deno.readDirSync(directory)) {
    if (!name.endsWith(".log")) {
      bytes += Deno.statSync(`${directory}/${name}`).size;
    }
  }
  return bytes;
}

/** Bytes in use on the file system of a directory, once all is written to it. */
function usedSpace(directory: string): number {
  const command = (name: string, ...args: string[]) =>
    new TextDecoder().decode(
      new Deno.Command(name, { args: [...args, directory] }).outputSync()
        .stdout,
    );
  command("sync", "-f");
  const [blocks, free, size] = command("stat", "-f", "-c", "%b %f %S")
    .split(" ").map(Number);
  return (blocks - free) * size;
}

/** @throws Error when the tool fails, or the program is not right afterwards */
export async function measure(
  bench: Bench,
  tool: Tool,
  subject: Subject,
): Promise<Sample> {
  const { host, images } = bench;
  const load = await Load.start(
    host,
    bench.programs[subject.program],
    bench.scratch,
    images,
    subject,
  );
  // Whether the pid is that of a child of the host at the moment.
  let lives = true;
  try {
    await sleep(SETTLE);
    load.forget();
    await sleep(QUIET);
    const quiet = load.gaps().largest;
    const options = [
      ...subject.options ?? [],
      ...tool.name === "ckpt" ? [] : subject.criuOptions ?? [],
    ];

    const first = `${images}/running`;
    Deno.mkdirSync(first);
    const usedBefore = usedSpace(images);
    load.forget();
    const running = await run(
      bench,
      tool,
      `${first}/dump.log`,
      dump(load.pid, first, true, options),
    );
    await sleep(SETTLE);
    const stop = load.gaps();
    const spaceBytes = usedSpace(images) - usedBefore;
    Deno.removeSync(first, { recursive: true });
    await load.check();

    const memoryBefore = load.memory();
    const second = `${images}/killed`;
    Deno.mkdirSync(second);
    const killed = await run(
      bench,
      tool,
      `${second}/dump.log`,
      dump(load.pid, second, false, options),
    );
    lives = false;
    await host.reap(load.pid);
    const bytes = imageBytes(second);

    const restored = await run(
      bench,
      tool,
      `${second}/restore.log`,
      restore(second, [
        ...subject.restoreOptions ?? [],
        ...subject.isRoot ? ["--root", bench.scratch] : [],
      ]),
    );
    lives = true;
    const memoryAfter = load.memory();
    await load.check();
    return {
      quiet,
      stop: stop.largest,
      stopSum: stop.sum,
      dumpRunningWall: running.wall,
      dumpRunningPeak: running.peak,
      dumpWall: killed.wall,
      dumpProcessor: killed.user + killed.system,
      dumpPeak: killed.peak,
      restoreWall: restored.wall,
      restorePeak: restored.peak,
      imageBytes: bytes,
      spaceBytes,
      memoryBefore,
      memoryAfter,
    };
  } finally {
    if (lives) await host.kill(load.pid);
    for (const name of ["running", "killed"]) {
      await Deno.remove(`${images}/${name}`, { recursive: true })
        .catch(() => {});
    }
  }
}

/** Milliseconds from start to end of `--version`, one per repetition. */
export async function startUp(
  bench: Bench,
  all: Tool[],
  repetitions: number,
): Promise<number[][]> {
  const walls: number[][] = all.map(() => []);
  for (let i = -2; i < repetitions; i++) {
    for (const [t, tool] of all.entries()) {
      const { wall } = await run(bench, tool, "", ["--version"]);
      if (i >= 0) walls[t].push(wall);
    }
  }
  return walls;
}
