import { assert, assertEquals, assertNotStrictEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { parseSmaps } from "../proc/smaps.ts";
import { readAreas, readMappings } from "./known_areas.ts";
import { planVmas } from "./vma.ts";

Deno.test("areas of the same text are interpreted once, and each has its own plan", async () => {
  await using child = await ChildProgram.start("ready()");
  const { pid } = child;
  const first = readAreas(pid, pid);
  const again = readAreas(pid, pid);
  assert(first.mappings === again.mappings);
  assert(first.mappings === readMappings(pid));
  const whole = parseSmaps(Deno.readTextFileSync(`/proc/${pid}/smaps`));
  assertEquals(first.mappings, whole);
  first.vmas.vmas[0].entry.shmid = 7n;
  assertNotStrictEquals(first.vmas.vmas[0].entry, again.vmas.vmas[0].entry);
  assertEquals(again.vmas, planVmas(pid, whole));
  assertEquals(readAreas(pid, pid).vmas, again.vmas);
});
