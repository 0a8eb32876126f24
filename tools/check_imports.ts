/**
 * Checks how the modules import each other: one way between the folders (see
 * LAYERS), no circle anywhere, no name that costs start-up time, and no
 * `import * as`, which keeps a bundler from dropping what is not used.
 *
 * Usage, from the root of the repository: deno run -A tools/check_imports.ts
 */

import { dirname, join } from "@std/path";

/**
 * The folders of lib/ from the top down; a module imports from its own layer
 * and from those below, never up, and folders of one layer make no circle.
 * The files directly in lib/ are at the bottom.
 */
const LAYERS: readonly (readonly string[])[] = [
  ["cli"],
  ["dump", "restore"],
  ["task", "mm", "files", "ghost", "mnt", "ns"],
  ["proc", "image"],
  ["ffi"],
  ["std"],
];

/** Specifier of every static, dynamic and re-exporting import. */
export function specifiers(source: string): string[] {
  const code = source.replace(/\/\*[^]*?\*\//g, "").replace(
    /^\s*\/\/.*$/gm,
    "",
  );
  const statement =
    /(?:^|[\n;}])\s*(?:import|export)\s(?:[\w*\s{},$]*?\sfrom\s*|\s*)"([^"\n]+)"/g;
  const dynamic = /\bimport\(\s*"([^"\n]+)"/g;
  return [...code.matchAll(statement), ...code.matchAll(dynamic)]
    .map((match) => match[1]);
}

/** "lib/mm/pages.ts" is in "mm"; "lib/error.ts" in none. */
function folder(path: string): string | undefined {
  return /^lib\/([^/]+)\//.exec(path)?.[1];
}

function layer(path: string): number {
  if (path === "main.ts") return -1;
  const name = folder(path);
  if (name === undefined) return LAYERS.length;
  return LAYERS.findIndex((names) => names.includes(name));
}

/**
 * @param modules path from the root of the repository, with its text
 * @param named what the import map makes of a bare name; undefined when it is
 *   not in the map
 * @returns one line for each fault; empty when there is none
 */
export function faults(
  modules: ReadonlyMap<string, string>,
  named: (name: string) => string | undefined,
): string[] {
  const found: string[] = [];
  const graph = new Map<string, string[]>();
  const folders = new Map<string, string[]>();
  for (const [path, source] of modules) {
    const test = path.endsWith("_test.ts") || path.includes("/testing/");
    const own = layer(path);
    if (path.startsWith("lib/") && own < 0) {
      found.push(`${path}: folder "${folder(path)}" is in no layer`);
      continue;
    }
    if (!test && /^\s*import \* as\b/m.test(source)) {
      found.push(`${path}: "import * as"; import the names that are used`);
    }
    const targets: string[] = [];
    for (const specifier of specifiers(source)) {
      if (!test && /^(node|npm|jsr|https?):/.test(specifier)) {
        found.push(`${path}: "${specifier}" costs start-up time; not in lib/`);
      }
      const target = specifier.startsWith(".")
        ? join(dirname(path), specifier)
        : named(specifier);
      if (target === undefined || !modules.has(target)) continue;
      targets.push(target);
      if (test) continue;
      if (target.endsWith("_test.ts") || target.includes("/testing/")) {
        found.push(`${path}: imports ${target}, which is for tests only`);
      } else if (layer(target) < own) {
        found.push(
          `${path}: imports ${target}; imports go down only: ` +
            LAYERS.map((names) => names.join("|")).join(" -> "),
        );
      }
      const [from, to] = [folder(path), folder(target)];
      if (from !== undefined && to !== undefined && from !== to) {
        folders.set(from, [...folders.get(from) ?? [], to]);
      }
    }
    graph.set(path, targets);
  }
  return found.concat(circles(graph), circles(folders));
}

/** Each circle once, told from its first module on. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const way: string[] = [];
  const walk = (path: string) => {
    const at = way.indexOf(path);
    if (at >= 0) found.push(`circle: ${[...way.slice(at), path].join(" -> ")}`);
    if (at >= 0 || done.has(path)) return;
    way.push(path);
    for (const target of graph.get(path) ?? []) walk(target);
    way.pop();
    done.add(path);
  };
  for (const path of graph.keys()) walk(path);
  return found;
}

function* sources(directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(directory)) {
    const path = join(directory, entry.name);
    if (entry.isDirectory) yield* sources(path);
    else if (path.endsWith(".ts") && !path.endsWith(".d.ts")) yield path;
  }
}

if (import.meta.main) {
  const { imports } = JSON.parse(Deno.readTextFileSync("deno.json"));
  const modules = new Map(
    ["main.ts", ...sources("lib")].map((
      path,
    ) => [path, Deno.readTextFileSync(path)]),
  );
  const found = faults(modules, (name) => {
    const target = imports[name];
    return target?.startsWith("./") ? join(target) : undefined;
  });
  for (const fault of found) console.error(fault);
  if (found.length > 0) Deno.exit(1);
}
