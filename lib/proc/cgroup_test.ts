import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseCgroup } from "./cgroup.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const TEXT = `
9:name=systemd:/
3:cpu,cpuacct:/a:b/c d
0::/../gone (deleted)
`.slice(1);

Deno.test("cgroup gives hierarchies of both versions", () => {
  assertEquals(parseCgroup(TEXT), [
    {
      hierarchy: 9,
      controllers: ["name=systemd"],
      path: "/",
      deletedMark: false,
    },
    {
      hierarchy: 3,
      controllers: ["cpu", "cpuacct"],
      path: "/a:b/c d",
      deletedMark: false,
    },
    {
      hierarchy: 0,
      controllers: [],
      path: "/../gone (deleted)",
      deletedMark: true,
    },
  ]);
});

Deno.test("a malformed membership is an error that names the line", () => {
  for (const line of ["", "0", "0:/", "0::", "0::a", "x::/"]) {
    const error = assertThrows(
      () => parseCgroup(`${TEXT}${line}\n`, "c"),
      CkptError,
    );
    assertEquals(error.reasons[0].object, "c, line 4");
  }
});

Deno.test("damaged cgroup either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseCgroup, [TEXT]);
});
