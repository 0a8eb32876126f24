/** Makes one script of a TypeScript module and all that it imports. */

const esbuild = "node_modules/@esbuild/linux-x64/bin/esbuild";

/**
 * Options that make esbuild resolve what Deno resolves by the import map: a
 * name that leads to a file. Names of packages it finds in node_modules.
 */
function aliases(imports: Record<string, string>): string[] {
  return Object.entries(imports)
    .filter(([, target]) => target.startsWith("./"))
    .map(([name, target]) => `--alias:${name}=${target}`);
}

/**
 * @param entry path of the module, from the root of the repository
 * @returns a classic script (no import, no export, no top-level await)
 * @throws Error when esbuild refuses; it has said why on stderr
 */
export async function bundle(entry: string): Promise<string> {
  const { imports } = JSON.parse(await Deno.readTextFile("deno.json"));
  const { success, stdout } = await new Deno.Command(esbuild, {
    args: [
      entry,
      "--bundle",
      // Names stay: shorter ones save no measurable time at start, and a
      // reported stack trace has to say where it came from.
      "--minify-whitespace",
      "--minify-syntax",
      "--format=iife",
      "--target=esnext",
      "--platform=neutral",
      "--main-fields=module,main",
      "--charset=ascii",
      "--legal-comments=none",
      "--log-level=warning",
      // Only development looks at import.meta (lib/ffi/library_path.ts).
      "--log-override:empty-import-meta=silent",
      ...aliases(imports),
    ],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`esbuild could not bundle ${entry}`);
  return new TextDecoder().decode(stdout) + "//# sourceURL=ckpt.js\n";
}
