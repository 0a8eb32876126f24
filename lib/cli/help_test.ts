/** Help and version. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { helpText } from "./help.ts";
import { EXIT } from "../error.ts";
import { appliesTo, COMMANDS, OPTIONS } from "./option_table.ts";
import { VERSION } from "../version.ts";

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

function readDocument(name: string): string {
  const path = new URL(`../../docs/${name}`, import.meta.url);
  return Deno.readTextFileSync(path);
}

Deno.test("docs/options.md has a row for every option, with its commands", () => {
  const rows = readDocument("options.md").split("\n")
    .filter((line) => line.startsWith("| `-"));
  for (const option of OPTIONS) {
    const row = rows.find((line) =>
      new RegExp("--" + option.name + "(?![a-z-])").test(line.split("|")[1])
    );
    const commands = row?.split("|")[2].trim();
    assertEquals(commands, option.commands.join(", ") || "all", option.name);
  }
});

Deno.test("docs/exit-codes.md names every exit code", () => {
  const text = readDocument("exit-codes.md");
  for (const [name, code] of Object.entries(EXIT)) {
    assert(new RegExp(`^\\| ${code} +\\| ${name} +\\|`, "m").test(text), name);
  }
});
