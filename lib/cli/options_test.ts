/** What the commands are handed for what was typed. */
import { assertEquals } from "@std/assert";
import type { DumpOptions } from "../dump/options.ts";
import type { Reason } from "../error.ts";
import { parseArguments } from "./arguments.ts";
import { readOptions, readSurroundings } from "./options.ts";

function read(line: string) {
  const parsed = parseArguments(line.split(" "));
  const surroundings = readSurroundings(parsed, "/cwd");
  const problems: Reason[] = [...parsed.problems];
  if (parsed.command === undefined || parsed.command === "help") {
    throw new Error(`no command in: ${line}`);
  }
  const chosen = readOptions(
    parsed.command,
    parsed,
    surroundings,
    "/cwd",
    problems,
  );
  return {
    surroundings,
    options: chosen.options,
    problems: problems.map((p) => `${p.object}: ${p.why}`),
  };
}

Deno.test("a dump with no more than a pid gets CRIU's defaults", () => {
  assertEquals(read("dump 7"), {
    surroundings: {
      imagesDirectory: "/cwd",
      workDirectory: "/cwd",
      logFile: undefined,
      verbosity: 2,
      json: false,
    },
    options: {
      pid: 7,
      imagesDirectory: "/cwd",
      workDirectory: "/cwd",
      leaveRunning: false,
      leaveStopped: false,
      timeoutSeconds: 10,
      replace: false,
      shellJob: false,
      external: [],
    },
    problems: [],
  });
});

Deno.test("every option of dump arrives", () => {
  const { options, problems, surroundings } = read(
    "dump -t 7 -D i -W w -o l -v4 -R -j --external a --external b[c]:d --root r --timeout 0 --freeze-cgroup c --replace --json",
  );
  assertEquals(problems, []);
  assertEquals(options, {
    pid: 7,
    freezeCgroup: "/cwd/c",
    imagesDirectory: "/cwd/i",
    workDirectory: "/cwd/w",
    leaveRunning: true,
    leaveStopped: false,
    timeoutSeconds: 0,
    replace: true,
    shellJob: true,
    external: ["a", "b[c]:d"],
    root: "/cwd/r",
  });
  assertEquals(surroundings.logFile, "/cwd/w/l");
  assertEquals(surroundings.verbosity, 4);
  assertEquals(surroundings.json, true);
});

Deno.test("every option of restore arrives", () => {
  const { options, problems } = read(
    "restore -D /i -d -S -s -j -r /r --pidfile p --external x --inherit-fd fd[5]:pipe[9] --inherit-fd fd[0]:tty[1:2]",
  );
  assertEquals(problems, []);
  assertEquals(options, {
    imagesDirectory: "/i",
    workDirectory: "/i",
    detached: true,
    sibling: true,
    leaveStopped: true,
    pidfile: "/i/p",
    shellJob: true,
    external: ["x"],
    inheritFd: [{ fd: 5, key: "pipe[9]" }, { fd: 0, key: "tty[1:2]" }],
    root: "/r",
  });
});

Deno.test("log and pid file are relative to the work directory, which is the images directory unless named", () => {
  assertEquals(read("dump 1 -D i -o l").surroundings.logFile, "/cwd/i/l");
  assertEquals(read("dump 1 -D i -W w -o l").surroundings.logFile, "/cwd/w/l");
  assertEquals(read("dump 1 -D i -W w -o /l").surroundings.logFile, "/l");
  assertEquals(read("dump 1 -o -").surroundings.logFile, undefined);
});

Deno.test("check takes a pid or none", () => {
  assertEquals(read("check").options, { shellJob: false, external: [] });
  assertEquals(read("check 5 -j").options, {
    pid: 5,
    shellJob: true,
    external: [],
  });
});

Deno.test("a limit for deleted files is a number of bytes, with a unit or without", () => {
  const limit = (text: string) => {
    const { options, problems } = read(`dump --ghost-limit ${text} 7`);
    return [(options as { ghostLimit?: bigint }).ghostLimit, ...problems];
  };
  assertEquals(limit("0"), [0n]);
  assertEquals(limit("4096"), [4096n]);
  assertEquals(limit("3k"), [3072n]);
  assertEquals(limit("2M"), [2n << 20n]);
  assertEquals(limit("5G"), [5n << 30n]);
  assertEquals(limit("1T"), [1n << 40n]);
  for (const wrong of ["-1", "1.5G", "1KB", "G", "1e3", "9".repeat(16)]) {
    assertEquals(limit(wrong), [
      undefined,
      `--ghost-limit: "${wrong}" is not a number of bytes`,
    ]);
  }
});

Deno.test("consent to links and the limit are options of dump and check alike", () => {
  const wanted = { linkRemap: true, ghostLimit: 1n << 20n };
  for (const command of ["dump", "check"]) {
    const { options, problems } = read(
      `${command} --link-remap --ghost-limit 1M 7`,
    );
    assertEquals(problems, []);
    const { linkRemap, ghostLimit } = options as typeof wanted;
    assertEquals({ linkRemap, ghostLimit }, wanted);
  }
});

Deno.test("how files are recognised and guarded is read from words and numbers", () => {
  const chosen = (line: string) => {
    const { options, problems } = read(line);
    assertEquals(problems, []);
    const { fileValidation, watchFs, freezeFs, dryRun } = options as Partial<
      DumpOptions
    >;
    return [fileValidation, watchFs, freezeFs, dryRun];
  };
  const none = undefined;
  assertEquals(chosen("dump 7"), [none, none, none, none]);
  assertEquals(
    chosen("dump 7 --watch-fs --freeze-fs --file-validation none"),
    [[], "fail", 60, none],
  );
  assertEquals(
    chosen("dump 7 --watch-fs=report --freeze-fs=5 --dry-run"),
    [none, "report", 5, true],
  );
  assertEquals(
    chosen("restore --dry-run --file-validation mtime,filesize"),
    [["filesize", "mtime"], none, none, true],
  );
});

Deno.test("links have one of two places, where they are made at all", () => {
  const place = (line: string) => {
    const { options, problems } = read(`dump -t 7 ${line}`);
    return [(options as { linkPlace?: string }).linkPlace, ...problems];
  };
  assertEquals(place("--link-remap"), [undefined]);
  assertEquals(place("--link-remap --link-place lost+found"), ["lost+found"]);
  assertEquals(place("--link-place beside"), [
    "beside",
    "--link-place: links are made only with --link-remap",
  ]);
  assertEquals(place("--link-remap --link-place x"), [
    undefined,
    '--link-place: "x" is no such place',
  ]);
});

Deno.test("clean takes its directory as show does", () => {
  for (const line of ["clean i", "clean -D i"]) {
    assertEquals(read(line).options, { imagesDirectory: "/cwd/i" });
  }
  assertEquals(read("clean").options, { imagesDirectory: "/cwd" });
  assertEquals(read("clean -D i j").problems, [
    "j: the directory is named twice, here and by --images-dir",
  ]);
});

Deno.test("show takes its directory as an argument or by --images-dir", () => {
  const expected = { imagesDirectory: "/cwd/d", json: false };
  assertEquals(read("show d").options, expected);
  assertEquals(read("show -D d").options, expected);
});

const WRONG: [line: string, problem: string][] = [
  ["dump 1 --watch-fs=x", '--watch-fs: "x" is not what it takes'],
  ["dump 1 --freeze-fs=0", '--freeze-fs: "0" is not a number of seconds'],
  [
    "restore --file-validation size",
    '--file-validation: "size" is not a list of methods',
  ],
  [
    "restore --file-validation none,mtime",
    '--file-validation: "none,mtime" is not a list of methods',
  ],
  ["dump", "--tree: the program to dump is not named"],
  ["dump 0", '--tree: "0" is not a process number'],
  ["dump -t -1", '--tree: "-1" is not a process number'],
  ["dump 1.5", '--tree: "1.5" is not a process number'],
  ["dump 0x10", '--tree: "0x10" is not a process number'],
  ["dump 4194305", '--tree: "4194305" is not a process number'],
  ["dump 99999999999", '--tree: "99999999999" is not a process number'],
  ["dump 1 2", "2: is one argument too many"],
  ["dump -t 1 2", "2: the program is named twice, here and by --tree 1"],
  ["dump 1 --timeout x", '--timeout: "x" is not a number of seconds'],
  ["dump 1 --timeout -1", '--timeout: "-1" is not a number of seconds'],
  ["dump 1 -R -s", "--leave-running: contradicts --leave-stopped"],
  ["restore 1", "1: is one argument too many"],
  [
    "restore -S",
    "--restore-sibling: ckpt cannot wait for a program that is not its child",
  ],
  [
    "restore --inherit-fd 5:x",
    '--inherit-fd: "5:x" does not have the form fd[N]:KEY',
  ],
  [
    "restore --inherit-fd fd[5]:",
    '--inherit-fd: "fd[5]:" does not have the form fd[N]:KEY',
  ],
  [
    "restore --inherit-fd fd[99999999999]:x",
    '--inherit-fd: "fd[99999999999]:x" does not have the form fd[N]:KEY',
  ],
  [
    "restore --inherit-fd fd[5]:x --inherit-fd fd[6]:x",
    '--inherit-fd: the key "x" is given more than once',
  ],
  ["show a b", "b: is one argument too many"],
  ["show a -D b", "a: the directory is named twice, here and by --images-dir"],
];

for (const [line, problem] of WRONG) {
  Deno.test(`ckpt ${line} is refused`, () => {
    assertEquals(read(line).problems, [problem]);
  });
}
