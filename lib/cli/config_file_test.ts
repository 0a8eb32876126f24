/** Configuration files, in the syntax of criu(8). */
import { assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { parseConfiguration, readConfiguration } from "./config_file.ts";

Deno.test("options, values, quotes and comments are read as criu(8) says", () => {
  const text = `
leave-running
work-dir "/home/some one/my \\"work\\" dir\\ectory"
#this is a comment
no-shell-job   # this is another comment
\ttimeout\t5
external "mnt[#1]:x"
`;
  assertEquals(parseConfiguration(text, "f"), [
    "--leave-running",
    '--work-dir=/home/some one/my "work" dir\\ectory',
    "--no-shell-job",
    "--timeout=5",
    "--external=mnt[#1]:x",
  ]);
});

Deno.test("a line that is not an option is refused with its number", () => {
  const table: [text: string, object: string, why: string][] = [
    ["json\n-D x", "f, line 2", '"-D" is not the name of an option'],
    [
      "timeout 5 6",
      "f, line 1",
      "holds more than an option and its value",
    ],
    ['root "a', "f, line 1", "a double quote is not closed"],
    ['root "a\\"', "f, line 1", "a double quote is not closed"],
  ];
  for (const [text, object, why] of table) {
    const error = assertThrows(() => parseConfiguration(text, "f"), CkptError);
    assertEquals(error.exit, EXIT.usage);
    assertEquals(error.reasons[0].object, object);
    assertEquals(error.reasons[0].why, why);
  }
});

Deno.test("a file named by --config has to exist and to be a file", () => {
  for (const path of ["/nowhere/at/all", "/dev/null", "/"]) {
    const error = assertThrows(
      () => readConfiguration(false, path),
      CkptError,
    );
    assertEquals(error.reasons[0].object, path);
  }
});

Deno.test("the default file in the home directory is read unless told not to", () => {
  const home = Deno.makeTempDirSync();
  const before = Deno.env.get("HOME");
  try {
    Deno.mkdirSync(`${home}/.config/ckpt`, { recursive: true });
    Deno.writeTextFileSync(`${home}/.config/ckpt/default.conf`, "timeout 77\n");
    Deno.env.set("HOME", home);
    assertEquals(readConfiguration(true, undefined).at(-1), "--timeout=77");
    assertEquals(readConfiguration(false, undefined), []);
  } finally {
    if (before === undefined) Deno.env.delete("HOME");
    else Deno.env.set("HOME", before);
    Deno.removeSync(home, { recursive: true });
  }
});
