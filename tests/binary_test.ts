/**
 * dist/ckpt as people carry it about: alone, in poor surroundings. Holds for
 * either way of building it. `ckpt check` is the command that loads the
 * library and needs nothing else.
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { VERSION } from "../lib/version.ts";
import { CKPT } from "./harness.ts";

async function answer(command: string, options: Deno.CommandOptions) {
  const output = await new Deno.Command(command, options).output();
  const text = new TextDecoder();
  return {
    code: output.code,
    stdout: text.decode(output.stdout),
    stderr: text.decode(output.stderr),
  };
}

/** Runs ckpt from `bash -c SCRIPT`, which finds its path in $0. */
const shell = (script: string, ...more: string[]) =>
  answer("bash", { args: ["-c", script, CKPT, ...more] });

async function withDirectory(use: (path: string) => Promise<void>) {
  const directory = await Deno.makeTempDir();
  try {
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const versionPrinted = { code: 0, stdout: `ckpt ${VERSION}\n`, stderr: "" };

Deno.test("the version is printed", async () => {
  assertEquals(await answer(CKPT, { args: ["--version"] }), versionPrinted);
});

Deno.test("the version of the command is that of the package", async () => {
  const text = await Deno.readTextFile(
    new URL("../package.json", import.meta.url),
  );
  assertEquals(JSON.parse(text).version, VERSION);
});

Deno.test("help is ckpt's own, not that of what it is made of", async () => {
  for (const args of [["--help"], ["help"], ["-h"]]) {
    const { code, stdout } = await answer(CKPT, { args });
    assertEquals(code, EXIT.ok);
    assertStringIncludes(stdout, "ckpt restore");
  }
});

Deno.test("the library loads with an empty environment", async () => {
  const { code, stderr } = await answer(CKPT, {
    args: ["check"],
    clearEnv: true,
    cwd: "/",
  });
  assertEquals({ code, stderr }, { code: EXIT.ok, stderr: "" });
});

Deno.test("the library loads where nothing can be written", async () => {
  // Every mount of a private copy of the tree becomes read-only.
  const { code, stderr } = await shell(
    `exec unshare --mount bash -c '
      while read -r _ _ _ _ target _; do
        mount -o remount,bind,ro "$target" 2>/dev/null
      done </proc/self/mountinfo
      if : 2>/dev/null >/tmp/ckpt-can-write; then exit 99; fi
      exec "$0" check' "$0"`,
  );
  assertEquals({ code, stderr }, { code: EXIT.ok, stderr: "" });
});

Deno.test("the library loads with 64 descriptors", async () => {
  const { code, stderr } = await shell('ulimit -n 64; exec "$0" check');
  assertEquals({ code, stderr }, { code: EXIT.ok, stderr: "" });
});

Deno.test("a copy of the file in another place is ckpt as well", () =>
  withDirectory(async (directory) => {
    await Deno.copyFile(CKPT, `${directory}/another name`);
    const { code, stderr } = await answer(`${directory}/another name`, {
      args: ["check"],
      cwd: directory,
    });
    assertEquals({ code, stderr }, { code: EXIT.ok, stderr: "" });
  }));

Deno.test("a symbolic link to the file is ckpt as well", () =>
  withDirectory(async (directory) => {
    await Deno.symlink(CKPT, `${directory}/link`);
    const { code } = await answer(`${directory}/link`, { args: ["check"] });
    assertEquals(code, EXIT.ok);
  }));

Deno.test("closed standard streams do no harm", async () => {
  for (const command of ["--version", "check"]) {
    const { code } = await shell(`exec "$0" ${command} <&- >&- 2>&-`);
    assertEquals(code, EXIT.ok);
  }
});

Deno.test("five thousand arguments are all read", async () => {
  const args = ["dump", ...Array(4998).fill("-v"), "--no-such-option"];
  const { code, stderr } = await answer(CKPT, { args });
  assertEquals(code, EXIT.usage);
  assertStringIncludes(stderr, "--no-such-option");
});

Deno.test("nothing is written to the home or the temporary directory", () =>
  withDirectory(async (directory) => {
    const { code } = await answer(CKPT, {
      args: ["check"],
      env: {
        HOME: directory,
        TMPDIR: directory,
        XDG_CACHE_HOME: directory,
      },
    });
    assertEquals(code, EXIT.ok);
    assertEquals([...Deno.readDirSync(directory)], []);
  }));

Deno.test("settings of the user's for Deno and Node change nothing", async () => {
  const { code, stderr } = await answer(CKPT, {
    args: ["check"],
    env: {
      DENO_V8_FLAGS: "--no-such-flag",
      NODE_OPTIONS: "--no-such-option",
      RUST_LOG: "trace",
    },
  });
  assertEquals({ code, stderr }, { code: EXIT.ok, stderr: "" });
});

Deno.test("a current directory that is gone is an error, not a crash", () =>
  withDirectory(async (directory) => {
    const { code, stderr } = await shell(
      'mkdir "$1" && cd "$1" && rmdir "$1" && exec "$0" check',
      `${directory}/gone`,
    );
    assertEquals(code, EXIT.failed);
    assertStringIncludes(stderr, "director");
  }));
