/** The command line, split as getopt_long(3) splits it. */
import { assert, assertEquals } from "@std/assert";
import { parseArguments, type ParsedArguments } from "./arguments.ts";
import { CRIU_COMMANDS, CRIU_OPTIONS } from "./criu_options.ts";
import { OPTIONS } from "./option_table.ts";

function plain(parsed: ParsedArguments) {
  return {
    command: parsed.command,
    operands: parsed.operands,
    flags: [...parsed.flags].sort(),
    values: Object.fromEntries(parsed.values),
    verbosity: parsed.verbosity,
    problems: parsed.problems.map((p) => `${p.object}: ${p.why}`),
  };
}

const NOTHING = {
  command: "dump" as ParsedArguments["command"],
  operands: [] as string[],
  flags: [] as string[],
  values: {} as Record<string, string[]>,
  verbosity: 2,
  problems: [] as string[],
};

const TABLE: [string[], Partial<typeof NOTHING>][] = [
  [["dump"], {}],
  [["dump", "123"], { operands: ["123"] }],
  [["dump", "-t", "123"], { values: { tree: ["123"] } }],
  [["dump", "-t123"], { values: { tree: ["123"] } }],
  [["dump", "--tree", "123"], { values: { tree: ["123"] } }],
  [["dump", "--tree=123"], { values: { tree: ["123"] } }],
  [["dump", "--tree=a=b"], { values: { tree: ["a=b"] } }],
  [["-D", "x", "dump", "-t", "1"], {
    values: { "images-dir": ["x"], tree: ["1"] },
  }],
  [["dump", "-RjD", "/x"], {
    flags: ["leave-running", "shell-job"],
    values: { "images-dir": ["/x"] },
  }],
  [["dump", "-Rt7", "-j"], {
    flags: ["leave-running", "shell-job"],
    values: { tree: ["7"] },
  }],
  [["dump", "-D", "-x"], { values: { "images-dir": ["-x"] } }],
  [["dump", "-D", "a", "-D", "b"], { values: { "images-dir": ["b"] } }],
  [["dump", "--external", "a", "--external=b"], {
    values: { external: ["a", "b"] },
  }],
  [["dump", "-v"], { verbosity: 3 }],
  [["dump", "-vv"], { verbosity: 4 }],
  [["dump", "-vvvvvv"], { verbosity: 4 }],
  [["dump", "-v", "-v"], { verbosity: 4 }],
  [["dump", "-v0"], { verbosity: 0 }],
  [["dump", "-v4"], { verbosity: 4 }],
  [["dump", "-v9"], { verbosity: 4 }],
  [["dump", "-Rv3"], { flags: ["leave-running"], verbosity: 3 }],
  [["dump", "-v", "4"], { verbosity: 3, operands: ["4"] }],
  [["dump", "--verbosity"], { verbosity: 3 }],
  [["dump", "--verbosity=1"], { verbosity: 1 }],
  [["dump", "-R", "--no-leave-running"], {}],
  [["dump", "--no-default-config"], { flags: ["no-default-config"] }],
  [["dump", "--", "-R"], { operands: ["-R"] }],
  [["dump", "-"], { operands: ["-"] }],
  [["dump", "-vR"], { problems: ['-v: "R" is not a level'] }],
  [["dump", "--verbosity=x"], {
    problems: ['--verbosity: "x" is not a level'],
  }],
  [["dump", "-t"], { problems: ["-t: needs a value"] }],
  [["dump", "--tree="], { problems: ["--tree: needs a value"] }],
  [["dump", "-D", ""], { problems: ["-D: needs a value"] }],
  [["dump", "-R", "--leave-running=1"], {
    flags: ["leave-running"],
    problems: ['--leave-running: takes no value, but got "1"'],
  }],
  [["dump", "-Z", "-R"], {
    flags: ["leave-running"],
    problems: ["-Z: is not an option of ckpt"],
  }],
  [["dump", "-ZR"], {
    flags: ["leave-running"],
    problems: ["-Z: is not an option of ckpt"],
  }],
  [["dump", "--pidfile", "p"], {
    values: { pidfile: ["p"] },
    problems: [
      "--pidfile: ckpt dump does not have this option; it belongs to restore",
    ],
  }],
  [["dump", "--enable-fs", "x", "5"], {
    operands: ["5"],
    problems: ["--enable-fs: ckpt does not have this CRIU option"],
  }],
  [["dump", "--irmap-scan-path", "/x", "5"], {
    operands: ["5"],
    values: { "irmap-scan-path": ["/x"] },
  }],
  [["dump", "--manage-cgroups", "5"], {
    operands: ["5"],
    problems: ["--manage-cgroups: ckpt does not have this CRIU option"],
  }],
  [["dump", "--manage-cgroups=full", "5"], {
    operands: ["5"],
    problems: ["--manage-cgroups: ckpt does not have this CRIU option"],
  }],
  [["dump", "-Rn"], {
    flags: ["leave-running"],
    problems: ["-n (--namespaces): ckpt does not have this CRIU option"],
  }],
  [["dump", "-Jnet:5", "7"], {
    operands: ["7"],
    problems: ["-J (--join-ns): ckpt does not have this CRIU option"],
  }],
];

for (const [args, expected] of TABLE) {
  Deno.test(`ckpt ${args.join(" ")} is read as getopt would`, () => {
    assertEquals(plain(parseArguments(args)), { ...NOTHING, ...expected });
  });
}

Deno.test("every option of ckpt is read in its long and short form", () => {
  for (const entry of OPTIONS) {
    if (entry.name === "verbosity") continue;
    const command = entry.commands[0] ?? "dump";
    for (const form of [`--${entry.name}`, entry.short && `-${entry.short}`]) {
      if (!form) continue;
      const needsValue = entry.argument === "required";
      const parsed = parseArguments(
        needsValue ? [command, form, "value"] : [command, form],
      );
      assertEquals(parsed.problems, [], form);
      if (needsValue) {
        assertEquals(parsed.values.get(entry.name), ["value"], form);
      } else if (entry.argument === "optional") {
        assertEquals(parsed.values.get(entry.name), [""], form);
        const { values } = parseArguments([command, `${form}=value`]);
        assertEquals(values.get(entry.name), ["value"], form);
      } else {
        assert(parsed.flags.has(entry.name), form);
      }
    }
  }
});

Deno.test("every option of CRIU that ckpt lacks is refused by name", () => {
  for (const option of CRIU_OPTIONS) {
    const { problems, operands } = parseArguments(
      option.argument === "required"
        ? ["restore", `--${option.name}`, "value"]
        : ["restore", `--${option.name}`],
    );
    assertEquals(operands, [], option.name);
    assertEquals(problems, [{
      object: `--${option.name}`,
      why: "ckpt does not have this CRIU option",
      remedy: option.remedy,
    }]);
  }
});

Deno.test("no option is both known and refused, and no letter is used twice", () => {
  const names = [...OPTIONS, ...CRIU_OPTIONS].map((o) => o.name);
  assertEquals(names.length, new Set(names).size);
  const letters = [...OPTIONS, ...CRIU_OPTIONS].flatMap((o) => o.short ?? []);
  assertEquals(letters.length, new Set(letters).size);
});

Deno.test("every command of CRIU that ckpt lacks is refused by name", () => {
  for (const [name, remedy] of CRIU_COMMANDS) {
    assertEquals(parseArguments([name]).problems, [{
      object: name,
      why: "ckpt does not have this CRIU command",
      remedy,
    }]);
  }
});

Deno.test("a mistyped name is answered with the nearest known one", () => {
  const remedies = (args: string[]) =>
    parseArguments(args).problems.map((p) => p.remedy);
  assertEquals(remedies(["dump", "--leave-runing"]), [
    "did you mean --leave-running?",
  ]);
  assertEquals(remedies(["dump", "--image-dir=x"]), [
    "did you mean --images-dir?",
  ]);
  assertEquals(remedies(["dump", "--tcp-estblished"]), [
    "did you mean --tcp-established?",
  ]);
  assertEquals(remedies(["dmup"]), ["did you mean dump?"]);
  assertEquals(remedies(["dump", "--xyzzy-plugh"]), [
    "leave it out; ckpt help lists the options",
  ]);
});

Deno.test("the command line has the last word over configuration files", () => {
  const parsed = parseArguments(
    ["dump", "-D", "here", "--no-shell-job", "7"],
    ["--images-dir=there", "--shell-job", "--leave-running", "--pidfile=p"],
  );
  assertEquals(plain(parsed), {
    ...NOTHING,
    operands: ["7"],
    flags: ["leave-running"],
    values: { "images-dir": ["here"] },
  });
});

Deno.test("an option typed for the wrong command is refused although a file has it too", () => {
  const parsed = parseArguments(["dump", "--pidfile", "a"], ["--pidfile=b"]);
  assertEquals(parsed.problems.map((p) => p.object), ["--pidfile"]);
});

Deno.test("all that is wrong is reported at once", () => {
  const parsed = parseArguments(["dump", "--xyzzy", "--network-lock=x", "-t"]);
  assertEquals(parsed.problems.map((p) => p.object), [
    "--xyzzy",
    "--network-lock",
    "-t",
  ]);
});
