import { assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { parseCgroup } from "../proc/cgroup.ts";
import { TestCgroup, VERSIONS } from "../task/testing/test_cgroup.ts";
import { freezersOf, frozenByOthers, upwards } from "./frozen_cgroup.ts";

Deno.test("of all memberships, those of version 2 and of the freezer can freeze", () => {
  const memberships = parseCgroup(
    "9:name=systemd:/a\n6:cpu,freezer:/b/c\n4:memory:/\n0::/d:e\n",
  );
  assertEquals(freezersOf(memberships), [
    { path: "/b/c", version: 1 },
    { path: "/d:e", version: 2 },
  ]);
});

Deno.test("upwards goes from a cgroup to those above it, without the root", () => {
  assertEquals(upwards("/a/b/c"), ["/a/b/c", "/a/b", "/a"]);
  assertEquals(upwards("/"), []);
});

for (const version of VERSIONS) {
  Deno.test(`version ${version}: the highest frozen cgroup is named, unless it is the one that may be frozen`, async () => {
    await using child = await ChildProgram.start("ready()");
    await using cgroup = new TestCgroup(version);
    const middle = cgroup.child("middle");
    const leaf = cgroup.child("leaf", middle);
    cgroup.add(child.pid, leaf);
    const all = [cgroup.directory, middle, leaf];
    const found = (own?: string) =>
      frozenByOthers([child.pid], own, new Map()).map(({ why }) => why);
    for (let bits = 0; bits < 1 << all.length; bits++) {
      const frozen = all.filter((_, i) => bits >> i & 1);
      for (const directory of all) {
        cgroup.switch(frozen.includes(directory), directory);
      }
      const expected = (highest: string | undefined) =>
        highest === undefined ? [] : [`it is frozen by cgroup ${highest}`];
      assertEquals(found(), expected(frozen[0]));
      assertEquals(found("/tmp"), expected(frozen[0]));
      all.forEach((own, i) =>
        assertEquals(
          found(own),
          expected(frozen.find((one) => all.indexOf(one) < i)),
        )
      );
    }
  });
}
