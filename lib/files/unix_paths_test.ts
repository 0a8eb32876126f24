import { assertEquals } from "@std/assert";
import { wayThrough } from "./unix_paths.ts";

Deno.test("the way through a path has a directory for every step, and its end", () => {
  const table: [string, string[], string][] = [
    ["/run/a/b", ["run", "run/a"], "run/a/b"],
    ["b", [], "b"],
    ["/b", [], "b"],
    ["././/a//b", ["a"], "a/b"],
    ["../b", [], "b"],
    ["a/../b", ["a"], "b"],
    ["a/../../c/./d/../b", ["a", "c", "c/d"], "c/b"],
  ];
  for (const [path, directories, file] of table) {
    assertEquals(wayThrough(path), { directories, file }, path);
  }
});
