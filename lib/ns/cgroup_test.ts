import { assertEquals } from "@std/assert";
import { rootsOf } from "./cgroup.ts";

const at = (path: string, hierarchy = 0) => ({
  hierarchy,
  controllers: [],
  path,
  deletedMark: false,
});

Deno.test("what both see is below the root of the namespace", () => {
  assertEquals(rootsOf([at("/a/b/c")], [at("/c")]), [at("/a/b")]);
  assertEquals(rootsOf([at("/a/b")], [at("/")]), [at("/a/b")]);
  assertEquals(rootsOf([at("/a/b")], [at("/a/b")]), [at("/")]);
  assertEquals(
    rootsOf([at("/a", 1), at("/x/y", 2)], [at("/y", 2), at("/", 1)]),
    [at("/a", 1), at("/x", 2)],
  );
});

Deno.test("a process above or beside the root has left it", () => {
  assertEquals(rootsOf([at("/a/b")], [at("/../b")]), undefined);
  assertEquals(rootsOf([at("/a/b")], [at("/c")]), undefined);
  assertEquals(rootsOf([at("/a/b", 1)], [at("/", 2)]), undefined);
});
