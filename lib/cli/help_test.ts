/** Help and version. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { helpText } from "./help.ts";
import { appliesTo, COMMANDS, OPTIONS } from "./option_table.ts";
import { VERSION } from "./version.ts";

Deno.test("the help of a command lists its options, and no others", () => {
  for (const command of COMMANDS) {
    const text = helpText(command);
    for (const option of OPTIONS) {
      const listed = new RegExp(`^  (-., |    )--${option.name}\\b`, "m");
      assertEquals(listed.test(text), appliesTo(option, command), option.name);
    }
    assertStringIncludes(text, "Examples:");
  }
});

Deno.test("help fits a terminal of 80 columns", () => {
  for (const command of [undefined, ...COMMANDS]) {
    for (const line of helpText(command).split("\n")) {
      assert(line.length <= 80, line);
    }
  }
});

Deno.test("the version is that of package.json", () => {
  const path = new URL("../../package.json", import.meta.url);
  assertEquals(JSON.parse(Deno.readTextFileSync(path)).version, VERSION);
});
