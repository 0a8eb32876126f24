import { assertEquals } from "@std/assert";
import { unescapeNewline, unescapeOctal, unescapeTaskName } from "./escape.ts";

Deno.test("octal escapes of mountinfo become their characters", () => {
  const cases: [string, string][] = [
    ["", ""],
    ["/plain", "/plain"],
    [String.raw`/a\040b`, "/a b"],
    [String.raw`x\012y\011z\134`, "x\ny\tz\\"],
    [String.raw`\134040`, "\\040"],
    [String.raw`\043\054`, "#,"],
    // No escapes: too short, no octal digit, no ASCII.
    [String.raw`\04`, String.raw`\04`],
    [String.raw`\089`, String.raw`\089`],
    [String.raw`\303\\040`, "\\303\\ "],
  ];
  for (const [escaped, plain] of cases) {
    assertEquals(unescapeOctal(escaped), plain);
  }
});

Deno.test("only the newline is unescaped in maps", () => {
  assertEquals(unescapeNewline(String.raw`/a\012b\012`), "/a\nb\n");
  assertEquals(unescapeNewline(String.raw`/a\040b\134`), "/a\\040b\\134");
});

Deno.test("a task name has two escapes", () => {
  assertEquals(unescapeTaskName(String.raw`x\ny\\z`), "x\ny\\z");
  assertEquals(unescapeTaskName(String.raw`\\n`), "\\n");
  assertEquals(unescapeTaskName(String.raw`\t\ `), "\\t\\ ");
  assertEquals(unescapeTaskName("end\\"), "end\\");
});
