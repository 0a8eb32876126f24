/** Whole runs of the command line, with commands made for the test. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import type { Commands } from "./commands.ts";
import { runCommandLine } from "./mod.ts";
import { VERSION } from "../version.ts";

interface Run {
  code: number;
  output: string;
  error: string;
}

async function run(
  args: string[],
  commands: Partial<Commands> = {},
  terminal = false,
): Promise<Run> {
  const unexpected = () => Promise.reject(new Error("not expected here"));
  const result: Run = { code: -1, output: "", error: "" };
  result.code = await runCommandLine(
    args,
    {
      dump: unexpected,
      check: unexpected,
      restore: unexpected,
      show: unexpected,
      clean: unexpected,
      ...commands,
    },
    {
      writeOutput: (text) => void (result.output += text),
      writeError: (text) => void (result.error += text),
      errorIsTerminal: () => terminal,
      columns: () => 80,
    },
  );
  return result;
}

const REFUSED = new CkptError(EXIT.refused, "dumping task 7", [
  { object: "descriptor 5", why: "cannot be saved", remedy: "close it" },
  { object: "descriptor 6", why: "cannot be saved" },
]);

const refusing: Partial<Commands> = { dump: () => Promise.reject(REFUSED) };

async function inDirectory(
  body: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    await body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("version and help are printed whatever else is there", async () => {
  for (const args of [["--version"], ["-V"], ["dump", "--xyzzy", "-V"]]) {
    assertEquals(await run(args), {
      code: 0,
      output: `ckpt ${VERSION}\n`,
      error: "",
    });
  }
  const help = await run(["help", "dump"]);
  assertEquals(help.code, 0);
  assertStringIncludes(help.output, "ckpt dump [options] --tree PID");
  assertEquals(await run(["dump", "--help", "--xyzzy"]), help);
  assertEquals(await run(["--help"]), await run(["help"]));
});

Deno.test("help for a command that does not exist is an error", async () => {
  const { code, error } = await run(["help", "resore"]);
  assertEquals(code, 2);
  assertStringIncludes(error, "did you mean ckpt help restore?");
});

Deno.test("a command line without a command exits with 2", async () => {
  const { code, output, error } = await run([]);
  assertEquals([code, output], [2, ""]);
  assertStringIncludes(error, "command: is missing");
});

Deno.test("all that is wrong is told at once, with exit code 2", async () => {
  assertEquals(await run(["dump", "--network-lock=x", "--xyzzy", "0"]), {
    code: 2,
    output: "",
    error:
      `ckpt dump: reading the command line: --network-lock: ckpt does not have this CRIU option
  -> leave it out; ckpt check PID lists the sockets that cannot be saved
  --xyzzy: is not an option of ckpt
    -> leave it out; ckpt help lists the options
  --tree: "0" is not a process number
    -> write a number from 1 to 4194304
`,
  });
});

Deno.test("the error of a command goes to standard error, its code out", async () => {
  assertEquals(await run(["dump", "7"], refusing), {
    code: 3,
    output: "",
    error: `ckpt dump: dumping task 7: descriptor 5: cannot be saved
  -> close it
  descriptor 6: cannot be saved
`,
  });
});

Deno.test("with --json the error goes to standard output, as one line", async () => {
  const { code, output, error } = await run(["dump", "7", "--json"], refusing);
  assertEquals([code, error], [3, ""]);
  assertEquals(output.split("\n").length, 2);
  assertEquals(JSON.parse(output), {
    error: { exit: 3, action: REFUSED.action, reasons: REFUSED.reasons },
  });
});

Deno.test("--json holds for a command line that is wrong in other places", async () => {
  const { code, output } = await run(["dump", "--xyzzy", "--json"]);
  assertEquals(code, 2);
  assertEquals(JSON.parse(output).error.reasons[0].object, "--xyzzy");
});

Deno.test("with -v0 a failing command says nothing but its exit code", async () => {
  assertEquals(await run(["dump", "7", "-v0"], refusing), {
    code: 3,
    output: "",
    error: "",
  });
});

Deno.test("the log exists before the command runs, and is its owner's alone", () =>
  inDirectory(async (directory) => {
    let seen: Deno.FileInfo | undefined;
    await run(["dump", "7", "-D", directory, "-o", "dump.log"], {
      dump() {
        seen = Deno.statSync(`${directory}/dump.log`);
        return Promise.reject(REFUSED);
      },
    });
    assert(seen?.isFile);
    assertEquals(seen.mode! & 0o777, 0o600);
  }));

Deno.test("the log holds the error, with the time on every line, and so does standard error", () =>
  inDirectory(async (directory) => {
    const { error } = await run(
      ["dump", "7", "-D", directory, "-o", "dump.log"],
      refusing,
    );
    assertStringIncludes(error, "descriptor 6: cannot be saved");
    const lines = Deno.readTextFileSync(`${directory}/dump.log`)
      .trimEnd().split("\n");
    for (const line of lines) assertMatch(line, /^\(\d\d+\.\d{6}\) /);
    assertEquals(lines.map((line) => line.replace(/^\(.*?\) /, "")), [
      "ckpt dump: dumping task 7: descriptor 5: cannot be saved",
      "  -> close it",
      "  descriptor 6: cannot be saved",
    ]);
  }));

Deno.test("the log exists, with the error, when the command line is wrong beyond it", () =>
  inDirectory(async (directory) => {
    const wrong = [
      ["dump", "--xyzzy"],
      ["dump", "--network-lock=x", "1"],
      ["dump", "1", "--pidfile", "p"],
      ["dump"],
      ["dump", "1", "--config", `${directory}/none`],
      ["dmup", "1"],
      [],
    ];
    for (const [index, args] of wrong.entries()) {
      const name = `log${index}`;
      const { code } = await run(["-o", name, "-W", directory, ...args]);
      assertEquals(code, 2, args.join(" "));
      const text = Deno.readTextFileSync(`${directory}/${name}`);
      assertMatch(text, /: reading the (command line|configuration): /);
    }
  }));

Deno.test("a log file that cannot be made is an error before anything is done", () =>
  inDirectory(async (directory) => {
    const { code, error } = await run(
      ["dump", "7", "-W", `${directory}/none`, "-o", "x"],
    );
    assertEquals(code, 1);
    assertStringIncludes(
      error,
      `opening the log file: ${directory}/none/x: its directory does not exist`,
    );
  }));

Deno.test("the log of a dump can be in the directory that the dump makes", () =>
  inDirectory(async (directory) => {
    const images = `${directory}/images`;
    await run(["dump", "7", "-D", images, "-o", "dump.log", "-v3"], refusing);
    assertStringIncludes(
      Deno.readTextFileSync(`${images}/dump.log`),
      ` ckpt ${VERSION}: dump 7`,
    );
    assertEquals(Deno.statSync(images).mode! & 0o777, 0o700);
    const { code } = await run(
      ["restore", "-D", `${directory}/none`, "-o", "restore.log"],
    );
    assertEquals(code, 1);
  }));

Deno.test("a configuration file can name the log, and the command line overrides it", () =>
  inDirectory(async (directory) => {
    Deno.writeTextFileSync(
      `${directory}/conf`,
      `log-file one.log\nimages-dir "${directory}"\nverbosity 3\n`,
    );
    await run(["dump", "7", "--config", `${directory}/conf`], refusing);
    assertStringIncludes(
      Deno.readTextFileSync(`${directory}/one.log`),
      ` ckpt ${VERSION}: dump 7`,
    );
    await run(
      ["dump", "7", "--config", `${directory}/conf`, "-o", "two.log", "-v1"],
      refusing,
    );
    assertEquals(
      Deno.readTextFileSync(`${directory}/two.log`).split("\n").length,
      4,
    );
  }));

Deno.test("messages reach the log as far as -v lets them", () =>
  inDirectory(async (directory) => {
    for (let verbosity = 0; verbosity <= 4; verbosity++) {
      await run(
        ["restore", `-v${verbosity}`, "-W", directory, "-o", "log"],
        {
          restore(_options, report) {
            for (const level of [0, 1, 2, 3, 4] as const) {
              report.log(level, `message ${level}`);
            }
            return Promise.resolve({ pid: 1 });
          },
        },
      );
      const levels = Deno.readTextFileSync(`${directory}/log`)
        .matchAll(/message (\d)/g).map((m) => Number(m[1])).toArray();
      const expected = [0, 1, 2, 3, 4].filter((level) => level <= verbosity);
      assertEquals(levels, expected);
    }
  }));

Deno.test("without -o the log goes to standard error, and the error is said once", async () => {
  const { error } = await run(["dump", "7"], {
    dump(_options, report) {
      report.log(2, "something is odd");
      report.log(3, "not shown");
      return Promise.reject(REFUSED);
    },
  });
  assertMatch(error, /^\(\d\d\.\d{6}\) Warning: something is odd\n/);
  assertEquals(error.match(/descriptor 5/g)?.length, 1);
  assert(!error.includes("not shown"));
});

Deno.test("an unforeseen exception is an internal error, with its stack in the log", () =>
  inDirectory(async (directory) => {
    const { code, error } = await run(
      ["dump", "7", "-D", directory, "-o", "log"],
      { dump: () => Promise.reject(new TypeError("x is not a function")) },
    );
    assertEquals(code, 1);
    assertStringIncludes(error, "internal error: ckpt: TypeError: x is not");
    assert(!error.includes("mod_test.ts"));
    assertStringIncludes(
      Deno.readTextFileSync(`${directory}/log`),
      "mod_test.ts",
    );
  }));

Deno.test("a restore that waited exits as its program did", async () => {
  for (
    const [result, code] of [
      [{ pid: 5, exit: 0 }, 0],
      [{ pid: 5, exit: 200 }, 200],
      [{ pid: 5, signal: 9 }, 137],
      [{ pid: 5 }, 0],
    ] as const
  ) {
    const restore = () => Promise.resolve(result);
    assertEquals(await run(["restore"], { restore }), {
      code,
      output: "",
      error: "",
    });
    const json = await run(["restore", "--json"], { restore });
    assertEquals(JSON.parse(json.output), { result });
    assertEquals(json.code, code);
  }
});

Deno.test("figures are in the result of --json, and in the log at -v3", async () => {
  const { output, error } = await run(["dump", "7", "--json", "-v3"], {
    dump(options, report) {
      report.stats({ frozen_time: 12, pages_written: 2n ** 40n });
      const { pid, imagesDirectory } = options;
      return Promise.resolve({ pid, imagesDirectory });
    },
  });
  assertEquals(JSON.parse(output).result.stats, {
    frozen_time: 12,
    pages_written: 2 ** 40,
  });
  assertStringIncludes(error, "pages_written: 1099511627776");
});

Deno.test("check tells the command that would dump the task, or why there is none", async () => {
  const can = await run(["check", "7"], {
    check: () =>
      Promise.resolve({ pid: 7, reasons: [], neededOptions: ["--shell-job"] }),
  });
  assertEquals(can, {
    code: 0,
    output: "task 7 can be dumped: ckpt dump --tree 7 --shell-job\n",
    error: "",
  });
  const cannot = await run(["check", "7"], {
    check: () =>
      Promise.resolve({ pid: 7, reasons: REFUSED.reasons, neededOptions: [] }),
  });
  assertEquals(cannot, {
    code: 3,
    output: `task 7 cannot be dumped:
  descriptor 5: cannot be saved
    -> close it
  descriptor 6: cannot be saved
`,
    error: "",
  });
  const host = await run(["check"], {
    check: () => Promise.resolve({ reasons: [], neededOptions: [] }),
  });
  assertEquals(host.output, "this host has all that ckpt needs\n");
});

Deno.test("check has a line for each of the files that need care: what, why, how big, which option", async () => {
  const { output } = await run(["check", "7"], {
    check: () =>
      Promise.resolve({
        pid: 7,
        reasons: [],
        neededOptions: [],
        files: [
          ["/a (deleted)", "ghost", {}],
          ["/b\u001b (deleted)", "elsewhere", { path: "/c" }],
          ["/d (deleted)", "link", { option: "--link-remap" }],
          ["/e (deleted)", "refused", {}],
        ].map(([file, fate, rest]) => ({
          ...rest as object,
          file: file as string,
          fate: fate as "ghost",
          holder: "descriptor 5",
          task: 7,
          bytes: 4096n,
        })),
      }),
  });
  assertEquals(
    output,
    `task 7 can be dumped: ckpt dump --tree 7
  descriptor 5 (/a (deleted)) of task 7: deleted; 4096 bytes are saved
  descriptor 5 (/b\\x1b (deleted)) of task 7: it is opened as /c
  descriptor 5 (/d (deleted)) of task 7: it has other names; it is linked again, 4096 bytes are not copied (--link-remap)
`,
  );
});

Deno.test("a dry run tells the processes, and their sum where there are several", async () => {
  const processes = [1, 2].map((n) => ({
    pid: 6 + n,
    name: "a\u001b",
    threads: n,
    memory: n * 1024,
  }));
  const checked = { pid: 7, reasons: [], neededOptions: [], processes };
  const dump = await run(["dump", "--dry-run", "7"], {
    check: () => Promise.resolve(checked),
  });
  const both = (what: string) =>
    `  task 7 (a\\x1b): 1 thread, 1.0 KiB of ${what}
  task 8 (a\\x1b): 2 threads, 2.0 KiB of ${what}
  together: 2 processes, 3 threads, 3.0 KiB of ${what}
`;
  assertEquals(dump.code, 0);
  assertEquals(
    dump.output,
    "task 7 can be dumped: ckpt dump --tree 7\n" + both("memory in use"),
  );
  const restore = (reasons: typeof REFUSED.reasons) =>
    run(["restore", "--dry-run", "-D", "/i"], {
      restore: () =>
        Promise.resolve({
          pid: 7,
          plan: { reasons, processes, ghosts: ["/g"] },
        }),
    });
  const can = await restore([]);
  assertEquals(can.code, 0);
  assertEquals(
    can.output,
    "/i can be restored\n" + both("memory to be read") +
      "  /g: deleted; it is made again, without a name\n",
  );
  const cannot = await restore(REFUSED.reasons);
  assertEquals(cannot.code, 3);
  assertStringIncludes(
    cannot.output,
    "/i cannot be restored here:\n  descriptor 5: cannot be saved\n",
  );
});

Deno.test("clean tells what it removed, and what it left", async () => {
  const clean = (
    removed: string[],
    missing: string[],
    replaced: string[],
    last: string[],
  ) =>
    run(["clean", "i"], {
      clean: () => Promise.resolve({ removed, missing, replaced, last }),
    });
  assertEquals(
    (await clean(["/a"], ["/b"], ["/c"], ["/d"])).output,
    `removed /a
/b was gone already
/c is another file now: left as it is
/d is the only name that its file has by now: left as it is
`,
  );
  assertEquals(
    (await clean([], [], [], [])).output,
    "there was nothing to remove\n",
  );
});

Deno.test("progress shows on a terminal, and neither elsewhere nor with --json", async () => {
  const restore: Commands["restore"] = (_options, report) => {
    // The line appears after half a second of work.
    const end = performance.now() + 550;
    while (performance.now() < end);
    report.progress("filling pages", 1, 2);
    return Promise.resolve({ pid: 5 });
  };
  const shown = await run(["restore"], { restore }, true);
  assertEquals(shown.error, "\r\x1b[Kfilling pages: 50%\r\x1b[K");
  assertEquals((await run(["restore"], { restore }, false)).error, "");
  assertEquals((await run(["restore", "--json"], { restore }, true)).error, "");
});
