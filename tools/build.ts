/**
 * Makes dist/ckpt, the one binary: bundles main.ts and its modules to one
 * script, then joins it with Deno and dist/libckpt.so. The packed form holds
 * bundles for dump and restore alone as well, which start faster.
 *
 * With a base runtime at hand (DENORT_BIN, or one that Deno has in its cache)
 * by `deno compile`; else by packing the Deno binary of node_modules, which
 * needs nothing that `npm ci` has not brought (see pack/pack.ts). Both behave
 * the same; tests/binary_test.ts holds for either.
 *
 * Usage, from the root of the repository: deno run -A tools/build.ts
 */

import { join } from "@std/path";
import { bundle } from "./bundle.ts";
import { codeCache } from "./pack/code_cache.ts";
import { pack } from "./pack/pack.ts";
import { train } from "./pack/training.ts";

const deno = "node_modules/deno/deno";
const library = "dist/libckpt.so";
const stub = "c/build/pack/stub.bin";
const trainee = "c/build/pack/trainee";
const binary = "dist/ckpt";

/** Where `deno compile` finds the base runtime; undefined when nowhere. */
function baseRuntime(): string | undefined {
  const given = Deno.env.get("DENORT_BIN");
  if (given) return given;
  const home = Deno.env.get("HOME");
  const cache = Deno.env.get("DENO_DIR") ||
    join(
      Deno.env.get("XDG_CACHE_HOME") || join(home || "/nonexistent", ".cache"),
      "deno",
    );
  const archive = join(
    cache,
    `dl/release/v${Deno.version.deno}/denort-x86_64-unknown-linux-gnu.zip`,
  );
  try {
    return Deno.statSync(archive).isFile ? archive : undefined;
  } catch {
    return undefined;
  }
}

/** In a directory of its own, where no node_modules can get embedded. */
function compile(program: string): void {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(join(directory, "ckpt.js"), program);
    Deno.copyFileSync(library, join(directory, "libckpt.so"));
    const { success } = new Deno.Command(Deno.execPath(), {
      cwd: directory,
      args: ["compile", "--quiet", "--allow-all", "--no-check", "--no-config"]
        .concat(["--no-code-cache", "--include", "libckpt.so"])
        .concat(["--output", "ckpt", "ckpt.js"]),
    }).outputSync();
    if (!success) throw new Error("deno compile failed");
    install(Deno.readFileSync(join(directory, "ckpt")));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** By rename, so that a ckpt that is running keeps its own file. */
function install(bytes: Uint8Array): void {
  Deno.writeFileSync(`${binary}.new`, bytes, { mode: 0o755 });
  Deno.chmodSync(`${binary}.new`, 0o755);
  Deno.renameSync(`${binary}.new`, binary);
}

const base = baseRuntime();
let size: number;
if (base !== undefined) {
  const program = await bundle("main.ts");
  size = program.length;
  compile(program);
} else {
  const start = Deno.readFileSync(stub);
  const [all, dump, restore] = await Promise.all(
    ["main.ts", "lib/cli/main_dump.ts", "lib/cli/main_restore.ts"].map(bundle),
  );
  size = all.length;
  const trained = await train(deno, library, trainee, { dump, restore });
  if (trained === undefined) {
    console.error("Nothing can be dumped here: ckpt will start 6 ms slower.");
  }
  const compiled = (program: string, data?: Uint8Array) => ({
    text: new TextEncoder().encode(program),
    cache: codeCache(deno, start, program, data),
  });
  install(pack(
    Deno.readFileSync(deno),
    start,
    Deno.readFileSync(library),
    [
      compiled(all),
      compiled(dump, trained?.dump),
      compiled(restore, trained?.restore),
    ],
  ));
}
console.log(
  `${binary}: ${(Deno.statSync(binary).size / 1e6).toFixed(1)} MB, ` +
    `program ${(size / 1e3).toFixed(0)} KB, ` +
    (base ? `compiled on ${base}` : "packed with node_modules/deno"),
);
