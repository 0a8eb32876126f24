/** Compiles the C programs of the benchmark, when they are newer than what is there. */

const SOURCES = new URL("programs/", import.meta.url).pathname;
const COMPILED = new URL("../dist/bench/", import.meta.url).pathname;

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/**
 * @param name of a source in `bench/programs`, without `.c`
 * @param options of gcc
 * @returns absolute path of the executable
 * @throws Error with what the compiler said
 */
export function compile(name: string, ...options: string[]): string {
  const source = `${SOURCES}${name}.c`;
  const target = `${COMPILED}${name}`;
  const newest = Math.max(modified(source), modified(`${SOURCES}page.h`));
  if (modified(target) > newest) return target;
  Deno.mkdirSync(COMPILED, { recursive: true });
  const { success, stderr } = new Deno.Command("gcc", {
    args: ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
      .concat(options, ["-o", `${target}.new`, source]),
  }).outputSync();
  if (!success) {
    throw new Error(`gcc ${source}:\n${new TextDecoder().decode(stderr)}`);
  }
  Deno.renameSync(`${target}.new`, target);
  return target;
}
