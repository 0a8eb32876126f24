import { assertEquals } from "@std/assert";
import { describeErrno } from "./errno.ts";

Deno.test("an error number is told by name and meaning, whatever its sign", () => {
  assertEquals(describeErrno(1), "EPERM (not permitted)");
  assertEquals(describeErrno(-28), "ENOSPC (no space left on device)");
});

Deno.test("an error number without a name is told as a number", () => {
  assertEquals(describeErrno(-133), "errno 133");
});

Deno.test("the constants are the numbers of the names they have", async () => {
  const errno = await import("./errno.ts");
  const constants = Object.entries(errno).filter(([name]) =>
    /^E[A-Z0-9]+$/.test(name)
  );
  assertEquals(constants.length > 5, true);
  for (const [name, number] of constants) {
    assertEquals(describeErrno(number as number).split(" ")[0], name);
  }
});

Deno.test("names and numbers are those of the kernel's headers", () => {
  for (const file of ["errno-base.h", "errno.h"]) {
    const text = Deno.readTextFileSync(`/usr/include/asm-generic/${file}`);
    for (
      const [, name, number] of text.matchAll(/^#define\s+(E\w+)\s+(\d+)/gm)
    ) {
      const [told] = describeErrno(Number(number)).split(" ");
      assertEquals([told === name || told === "errno", number], [true, number]);
    }
  }
});
