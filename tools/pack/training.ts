/**
 * Finds out which functions of the program run in a dump and in a restore, by
 * dumping and restoring a program of its own (trainee.c). To have all functions
 * compiled beforehand costs 6 ms of every dump: they are read, copied and kept,
 * and two fifths of them are for what most programs do not have.
 */

import { join } from "@std/path";

const RUNNER = join(import.meta.dirname!, "run_script.js");

/** What V8 would cache after the bundle has run: its `createCachedData`. */
export interface Trained {
  dump: Uint8Array;
  restore: Uint8Array;
}

/**
 * @param deno path of the Deno that will run the programs
 * @param library path of libckpt.so
 * @param trainee path of the compiled trainee.c
 * @param programs the scripts for dump and restore
 * @returns or undefined where nothing can be dumped: not as root, in some
 *   containers. Standard error then says why
 */
export async function train(
  deno: string,
  library: string,
  trainee: string,
  programs: { dump: string; restore: string },
): Promise<Trained | undefined> {
  const directory = Deno.makeTempDirSync();
  const tree = await start(trainee);
  const alone = await start(trainee, "alone");
  try {
    const images = [1, 2, 3].map((i) => join(directory, `images${i}`));
    for (const path of images) Deno.mkdirSync(path);
    const run = (command: keyof Trained, ...options: string[][]) =>
      capture(
        deno,
        library,
        directory,
        programs[command],
        options.map((given) => [command, "--log-file", "log", ...given]),
      );
    const into = ({ pid }: Trainee, images: string) => [
      "--tree",
      `${pid}`,
      "--images-dir",
      images,
    ];
    const dump = run(
      "dump",
      [...into(tree, images[0]), "--leave-running"],
      into(tree, images[1]),
      into(alone, images[2]),
    );
    if (dump === undefined) return undefined;
    await tree.parent.status;
    const restore = run("restore", [
      "--restore-detached",
      "--images-dir",
      images[1],
    ]);
    return restore && { dump, restore };
  } finally {
    for (const { pid, parent } of [tree, alone]) {
      // It leads a group, dumped, restored, or neither.
      try {
        if (pid > 0) Deno.kill(-pid, "SIGKILL");
      } catch {
        // It has ended.
      }
      await parent.status;
    }
    Deno.removeSync(directory, { recursive: true });
  }
}

interface Trainee {
  readonly pid: number;
  readonly parent: Deno.ChildProcess;
}

async function start(trainee: string, ...args: string[]): Promise<Trainee> {
  const parent = new Deno.Command(trainee, {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  return { pid: Number(await new Response(parent.stdout).text()), parent };
}

function capture(
  deno: string,
  library: string,
  directory: string,
  program: string,
  commands: string[][],
): Uint8Array | undefined {
  const script = join(directory, "ckpt.js");
  const output = join(directory, "cached");
  Deno.writeTextFileSync(script, program);
  const LIBRARY = "9";
  const { success } = new Deno.Command("/bin/sh", {
    args: ["-c", `exec ${LIBRARY}<"$0"; exec "$@"`, library, deno, "run"]
      .concat(["--quiet", "--no-config", "--no-lock", "-A"])
      .concat(["--v8-flags=--no-flush-bytecode", RUNNER])
      .concat([script, LIBRARY, output])
      .concat(commands.map((command) => JSON.stringify(command))),
    env: { DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stderr: "inherit",
  }).outputSync();
  return success ? Deno.readFileSync(output) : undefined;
}
