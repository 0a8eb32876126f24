/**
 * `make bench`: ckpt beside CRIU in one run. README.md tells how to run and read it.
 *
 * CRIU=path  measure that one too      CKPT=path   default dist/ckpt
 * REPS=n     repetitions, default 5    ONLY=text   programs whose title has it
 * IMAGES=dir where the images go       --json      print JSON instead of text
 */

import { compile } from "./compile.ts";
import { Host } from "./host.ts";
import { type Subject } from "./load.ts";
import { type Bench, measure, type Sample, startUp } from "./measure.ts";
import { summarize } from "./statistics.ts";
import { type Block, FIGURES, render } from "./table.ts";
import { type Tool, tools } from "./tools.ts";

/** Private memory, threads in all, further mappings. */
function load(mebibytes: number, threads: number, mappings: number): Subject {
  return {
    program: "load",
    args: [mebibytes, threads, mappings],
    threads,
    answers: threads,
  };
}

/** Children, what each has written for itself, and what all have inherited. */
function family(
  children: number,
  kibibytes: number,
  sharedMebibytes: number,
): Subject {
  return {
    program: "family",
    args: [children, kibibytes, sharedMebibytes],
    threads: 1,
    answers: children + 1,
  };
}

/** Deleted files, the size of each, and the distance of the pieces of data in them (0: all of it is data). */
function ghosts(files: number, kibibytes: number, stride: number): Subject {
  return {
    program: "ghosts",
    args: [files, kibibytes, stride],
    threads: 1,
    answers: 1,
    makesFiles: true,
    options: ["--ghost-limit", "2048M"],
  };
}

/** Children; sets of 20 descriptors that all have, and that each has made for itself. */
function descriptors(
  children: number,
  inherited: number,
  own: number,
): Subject {
  return {
    program: "descriptors",
    args: [children, inherited, own],
    threads: 1,
    answers: children + 1,
    makesFiles: true,
  };
}

/** TCP connections between two processes, and pairs of Unix sockets of one. */
function connections(ofTcp: number, pairs: number): Subject {
  return {
    program: "connections",
    args: [ofTcp, pairs],
    threads: 1,
    answers: 1,
    options: ["--tcp-established"],
    // Without it CRIU calls iptables for each connection.
    criuOptions: ["--network-lock", "nftables"],
    restoreOptions: ["--tcp-established"],
  };
}

/** Mounts in a namespace of its own; how many file systems share mounts with a bind of them. */
function mounts(count: number, groups: number): Subject {
  return {
    program: "mounts",
    args: [count, groups],
    threads: 1,
    answers: 1,
    isRoot: true,
  };
}

const PROGRAMS: {
  title: string;
  subject: Subject;
  /** As many as these are enough. */
  repetitions?: number;
}[] = [
  { title: "10MiB, 1 thread", subject: load(10, 1, 0) },
  { title: "10MiB, 500 threads", subject: load(10, 500, 0) },
  { title: "10MiB, 1000 threads", subject: load(10, 1000, 0) },
  { title: "10MiB, 10000 mappings", subject: load(10, 1, 10000) },
  { title: "1GiB, 1 thread", subject: load(1024, 1, 0) },
  { title: "1 child of 1MiB", subject: family(1, 1024, 0) },
  { title: "10 children of 1MiB", subject: family(10, 1024, 0) },
  { title: "100 children of 1MiB", subject: family(100, 1024, 0) },
  { title: "1000 children of 1MiB", subject: family(1000, 1024, 0) },
  { title: "200MiB and 8 children", subject: family(8, 1024, 200) },
  { title: "1GiB ghost with 10% data", subject: ghosts(1, 1 << 20, 640) },
  { title: "10000 ghosts of 4KiB", subject: ghosts(10000, 4, 0) },
  { title: "10000 descriptors", subject: descriptors(3, 60, 65) },
  // With more than 250 CRIU crashes where it may not raise its limits.
  { title: "200 TCP connections", subject: connections(200, 0) },
  { title: "1000 TCP connections", subject: connections(1000, 0) },
  { title: "1000 Unix pairs", subject: connections(0, 1000) },
  { title: "10 mounts", subject: mounts(10, 5) },
  { title: "200 mounts", subject: mounts(200, 100) },
  { title: "2000 mounts", subject: mounts(2000, 100), repetitions: 1 },
  { title: "5000 mounts", subject: mounts(5000, 100), repetitions: 1 },
];
const START_UP_REPETITIONS = 21;
/** Always in memory: files of the benchmark that the programs map or write. */
const SCRATCH_PARENT = "/dev/shm";
const GIB = 2 ** 30;

function environment(name: string, otherwise: string): string {
  return Deno.env.get(name) || otherwise;
}

/** Type of the file system that holds a directory, from its mount point. */
function fileSystem(directory: string): string {
  const path = Deno.realPathSync(directory);
  let best = { point: "", type: "unknown" };
  for (const line of Deno.readTextFileSync("/proc/self/mounts").split("\n")) {
    const [, point, type] = line.split(" ");
    if (point === undefined || point.length < best.point.length) continue;
    if (path === point || path.startsWith(point === "/" ? "/" : `${point}/`)) {
      best = { point, type };
    }
  }
  return best.type;
}

/**
 * Touches memory once. In a virtual machine the first use of a page that the
 * machine has never used is many times slower than any later one, and would
 * be counted against whichever tool comes first.
 */
function warmMemory(directory: string): number {
  const available = Deno.systemMemoryInfo().available;
  const bytes = Math.min(10 * GIB, Math.floor(available / 2));
  const file = `${directory}/warm`;
  const chunk = new Uint8Array(16 * 2 ** 20).fill(1);
  let written = 0;
  try {
    using out = Deno.openSync(file, { write: true, create: true });
    while (written < bytes) written += out.writeSync(chunk);
  } catch (error) {
    // A small tmpfs: as much as it takes is warm.
    if (!String(error).includes("No space left")) throw error;
  } finally {
    Deno.removeSync(file);
  }
  return written;
}

/** Each tool comes first, in the middle and last, and after each of the others. */
function order(tools: number, repetition: number): number[] {
  const rotated = Array.from(
    { length: tools },
    (_, t) => (t + (repetition >> 1)) % tools,
  );
  return repetition % 2 ? rotated.reverse() : rotated;
}

/** All repetitions of one program. */
async function block(
  bench: Bench,
  all: Tool[],
  program: typeof PROGRAMS[number],
  most: number,
): Promise<Block> {
  const repetitions = Math.min(most, program.repetitions ?? most);
  const samples: Sample[][] = all.map(() => []);
  const failures = new Map<Tool, string>();
  // The first one warms file caches and is not counted.
  for (let i = 0; i <= repetitions; i++) {
    for (const at of order(all.length, i)) {
      const tool = all[at];
      if (failures.has(tool)) continue;
      try {
        const sample = await measure(bench, tool, program.subject);
        if (i > 0) samples[at].push(sample);
      } catch (error) {
        failures.set(tool, `${tool.name}: ${(error as Error).message}`);
      }
    }
  }
  return {
    title: program.title,
    tools: all.map((tool) => tool.name),
    lines: FIGURES.map(({ key, figure, unit }) => ({
      figure,
      unit,
      values: all.map((tool, t) =>
        failures.has(tool)
          ? undefined
          : summarize(samples[t].map((sample) => sample[key]))
      ),
    })),
    failures: [...failures.values()],
  };
}

async function startUpBlock(bench: Bench, all: Tool[]): Promise<Block> {
  const distinct = all.filter((tool, i) =>
    all.findIndex((other) => other.executable === tool.executable) === i
  );
  const walls = await startUp(bench, distinct, START_UP_REPETITIONS);
  return {
    title: "start-up",
    tools: distinct.map((tool) => tool.name),
    lines: [{
      figure: "--version, wall",
      unit: "ms",
      values: walls.map(summarize),
    }],
    failures: [],
  };
}

const json = Deno.args.includes("--json");
const unknown = Deno.args.find((argument) => argument !== "--json");
const repetitions = Number(environment("REPS", "5"));
if (unknown !== undefined || !(repetitions >= 1)) {
  console.error(
    unknown !== undefined
      ? `${unknown}: unknown argument; the only one is --json`
      : `REPS=${Deno.env.get("REPS")}: must be a number from 1`,
  );
  Deno.exit(2);
}
const criu = Deno.env.get("CRIU") || undefined;
const all = tools(
  Deno.realPathSync(environment("CKPT", "dist/ckpt")),
  criu && Deno.realPathSync(criu),
);
const programs = PROGRAMS.filter(({ title }) =>
  title.includes(environment("ONLY", ""))
);
const imagesParent = environment("IMAGES", SCRATCH_PARENT);
const say = (text: string) => json || console.log(text);

const scratch = Deno.makeTempDirSync({
  dir: SCRATCH_PARENT,
  prefix: "ckpt-bench.",
});
const images = Deno.makeTempDirSync({
  dir: imagesParent,
  prefix: "ckpt-bench-images.",
});
const setting = {
  kernel: new TextDecoder().decode(
    new Deno.Command("uname", { args: ["-r"] }).outputSync().stdout,
  ).trim(),
  processors: navigator.hardwareConcurrency,
  tools: all.map((tool) => `${tool.name}: ${tool.executable}`),
  repetitions,
  images: `${imagesParent} (${fileSystem(imagesParent)})`,
  load: Deno.loadavg()[0],
};
const blocks: Block[] = [];
// Ends the programs and removes both directories, also when this is killed.
await using host = await Host.start(compile("host"), [scratch, images]);
const bench: Bench = {
  host,
  programs: {
    load: compile("load"),
    family: compile("family"),
    ghosts: compile("ghosts"),
    descriptors: compile("descriptors"),
    connections: compile("connections"),
    mounts: compile("mounts", "-static"),
  },
  scratch,
  images,
};
say(
  `${setting.processors} processors, Linux ${setting.kernel}, ` +
    `load ${setting.load.toFixed(2)}, images in ${setting.images}\n` +
    setting.tools.join("\n") + "\n" +
    `Medians (least-most) of ${repetitions} runs of each tool in turn; ` +
    "a ratio is ckpt's median by that of the tool before it.",
);
if (criu !== undefined) {
  say(
    "criu: /run is a tmpfs of the benchmark's own, where criu keeps what it " +
      "found out about the kernel,\nas on most hosts. criu, no cache: that " +
      "file is removed before every run, as where /run is no tmpfs.",
  );
}
const warm = warmMemory(scratch);
say(`Warmed ${(warm / GIB).toFixed(1)} GiB of memory.\n`);
for (
  const next of [
    () => startUpBlock(bench, all),
    ...programs.map((program) => () => block(bench, all, program, repetitions)),
  ]
) {
  const result = await next();
  blocks.push(result);
  say(`${render(result)}\n`);
}
if (json) console.log(JSON.stringify({ setting, blocks }, null, 2));
if (blocks.some(({ failures }) => failures.length > 0)) Deno.exitCode = 1;
