import { assertEquals } from "@std/assert";
import { faults, specifiers } from "./check_imports.ts";

const check = (modules: Record<string, string>) =>
  faults(
    new Map(Object.entries(modules)),
    (name) => name === "@std/path" ? "lib/std/path.ts" : undefined,
  );

Deno.test("every form of import is seen, and none in a comment", () => {
  assertEquals(
    specifiers(`
// import { x } from "./no.ts";
/* import "./no.ts"; */
import { a, type B } from "./1.ts";
import c from "./2.ts";
import "./3.ts";
export * from "./4.ts";
export {
  d,
  e,
} from "./5.ts";
import type { F } from "./6.ts";
const g = await import("./7.ts");
export const h = { from: "./no.ts" };
`),
    ["1", "2", "3", "4", "5", "6", "7"].map((name) => `./${name}.ts`),
  );
});

Deno.test("imports that go down are right", () => {
  assertEquals(
    check({
      "main.ts": `import { a } from "./lib/cli/mod.ts";`,
      "lib/cli/mod.ts": `import { a } from "../dump/dump.ts";`,
      "lib/dump/dump.ts":
        `import { a } from "../mm/pages.ts";\nimport "../error.ts";`,
      "lib/mm/pages.ts": `import { join } from "@std/path";`,
      "lib/std/path.ts": "",
      "lib/error.ts": "",
    }),
    [],
  );
});

Deno.test("an import that goes up is named", () => {
  const found = check({
    "lib/ffi/a.ts": `import "../image/b.ts";`,
    "lib/image/b.ts": "",
    "lib/proc/c.ts": "",
    "lib/error.ts": `import "./proc/c.ts";`,
  });
  assertEquals(found.map((fault) => fault.split(";")[0]), [
    "lib/ffi/a.ts: imports lib/image/b.ts",
    "lib/error.ts: imports lib/proc/c.ts",
  ]);
});

Deno.test("folders of one layer may import each other one way only", () => {
  const one = {
    "lib/files/a.ts": `import "../ghost/b.ts";`,
    "lib/ghost/b.ts": "",
  };
  assertEquals(check(one), []);
  assertEquals(
    check({
      ...one,
      "lib/ghost/c.ts": `import "../files/d.ts";`,
      "lib/files/d.ts": "",
    }),
    ["circle: files -> ghost -> files"],
  );
});

Deno.test("a circle is named, once", () => {
  assertEquals(
    check({
      "lib/mm/a.ts": `import "./b.ts";`,
      "lib/mm/b.ts": `import "./c.ts";`,
      "lib/mm/c.ts": `import "./b.ts";`,
    }),
    ["circle: lib/mm/b.ts -> lib/mm/c.ts -> lib/mm/b.ts"],
  );
});

Deno.test("what costs start-up time is refused outside tests", () => {
  const source = `import * as fs from "node:fs";`;
  assertEquals(check({ "lib/mm/a.ts": source }).length, 2);
  assertEquals(check({ "lib/mm/a_test.ts": source }), []);
});

Deno.test("a folder that has no layer is refused", () => {
  assertEquals(check({ "lib/other/a.ts": "" }), [
    'lib/other/a.ts: folder "other" is in no layer',
  ]);
});
