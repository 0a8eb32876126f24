import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { parseArgs } from "@std/cli";
import { dirname, join, toFileUrl } from "@std/path";

Deno.test("the declared path functions behave as declared", () => {
  assertEquals(join(dirname("/a/b.ts"), "..", "c"), "/c");
  assertEquals(toFileUrl("/a b").href, "file:///a%20b");
  assertInstanceOf(assertThrows(() => toFileUrl("x"), TypeError), TypeError);
});

Deno.test("the argument parser keeps what follows -- apart when asked", () => {
  const args = parseArgs(["-t", "12", "dump", "--", "-x"], {
    string: ["tree"],
    alias: { tree: "t" },
    "--": true,
  });
  assertEquals(args.tree, "12");
  assertEquals(args._, ["dump"]);
  assertEquals(args["--"], ["-x"]);
});

Deno.test("every assertion that the types declare exists", async () => {
  const declared = Deno.readTextFileSync(
    new URL("./assert.d.ts", import.meta.url),
  ).matchAll(/^export (?:function|class) (\w+)/gm);
  const module = await import("@std/assert") as Record<string, unknown>;
  const missing = [...declared].map((m) => m[1]).filter((name) =>
    typeof module[name] !== "function"
  );
  assertEquals(missing, []);
});
