import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseSyscall, parseWchan } from "./syscall.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const INSIDE =
  "34 0x0 0x1 0x2 0x7fc8fdc26fe8 0x0 0xffffffffffffffff 0x7ffd65266790 " +
  "0x7fc8fdcecdf2\n";
const OUTSIDE = "-1 0x7ffd65266790 0x7fc8fdcecdf2\n";

Deno.test("syscall tells what a task waits in", () => {
  assertEquals(parseSyscall("running\n"), { kind: "running" });
  assertEquals(parseSyscall(OUTSIDE), {
    kind: "outside",
    sp: 0x7ffd65266790n,
    pc: 0x7fc8fdcecdf2n,
  });
  assertEquals(parseSyscall(INSIDE), {
    kind: "inside",
    nr: 34,
    args: [0n, 1n, 2n, 0x7fc8fdc26fe8n, 0n, 2n ** 64n - 1n],
    sp: 0x7ffd65266790n,
    pc: 0x7fc8fdcecdf2n,
  });
});

Deno.test("other texts of syscall are errors", () => {
  for (
    const text of [
      "",
      "stopped\n",
      "-1 0x0\n",
      INSIDE.replace(" 0x1", ""),
      INSIDE.replace("0x1", "1"),
      INSIDE.replace("0x1", "0x"),
      INSIDE.replace("0x1", "0x10000000000000000"),
    ]
  ) {
    assertThrows(() => parseSyscall(text), CkptError);
  }
});

Deno.test("wchan is a function or nothing", () => {
  assertEquals(parseWchan("0"), undefined);
  assertEquals(parseWchan("futex_wait_queue"), "futex_wait_queue");
  assertThrows(() => parseWchan(""), CkptError);
});

Deno.test("damaged syscall either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseSyscall, [INSIDE, OUTSIDE, "running\n"]);
});
