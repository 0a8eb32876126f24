/** Files whose path leads elsewhere or nowhere, on every kind of file system. */
import { assertEquals } from "@std/assert";
import { FILE_SYSTEMS, mountFileSystem, PLAIN } from "./file_systems.ts";
import {
  assertSuccess,
  compile,
  dump,
  LONG,
  type Program,
  restore,
  Scope,
} from "./harness.ts";

/**
 * Programs of tests/programs and their arguments. PLACE stands for a directory of its own, PARENT for the one that this
 * is in.
 */
const PLACE = "PLACE";
const PARENT = "PARENT";
const EVERYWHERE = [
  ["ghost_regular", PLACE],
  ["ghost_special", PLACE],
  ["ghost_program", "deleted", PLACE],
  ["ghost_program", "replaced", PLACE],
  ...[
    "relinked",
    "plain",
    "reserved",
    "newcomers",
    "nested",
    "marked",
    "bytes",
    "fifo",
    "sockets",
    "rotated",
    "spool",
    "fixed",
    "root",
    "locks",
    "projects",
    "odd",
  ].map((kind) => ["ghost_cases", kind, PLACE]),
];
const OF_BTRFS = [["ghost_cases", "subvolume", PLACE]];

/** How an overlay's lower layer is filled. */
const LOWER = "mkdir one; cd one; printf low > lower; " +
  ": > deleted; : > living; : > linked";
const OF_OVERLAY = [
  ["ghost_cases", "lower", PARENT],
  ["ghost_cases", "copied_up", PARENT],
];

const TIMES = LONG ? 3 : 1;

async function start(
  scope: Scope,
  [program, ...args]: readonly string[],
  place: string,
  parent = place,
): Promise<Program> {
  const work = scope.path(`work-${[program, ...args].join("-")}`);
  const started = await scope.startCommand(work, await compile(program), [
    work,
    ...args.map((arg) => arg === PLACE ? place : arg === PARENT ? parent : arg),
  ]);
  await started.ready();
  return started;
}

/** Dumps and restores some times, then lets the program verify itself. */
async function survives(
  scope: Scope,
  program: Program,
  ...options: string[]
): Promise<string> {
  for (let i = 0; i < TIMES; i++) {
    const images = scope.path(`images-${program.pid}-${i}`);
    await dump(scope, program, images, ...options);
    await restore(scope, program, images);
  }
  return await program.verify();
}

for (const name of FILE_SYSTEMS) {
  const overlay = name.startsWith("overlay");
  const cases = [
    ...EVERYWHERE,
    ...name === "btrfs" ? OF_BTRFS : [],
    ...overlay ? OF_OVERLAY : [],
  ];
  Deno.test(`deleted and renamed files on ${name} survive`, async () => {
    await using scope = new Scope();
    const { places: [parent] } = await mountFileSystem(scope, name, {
      lower: LOWER,
    });
    const failures: string[] = [];
    for (const command of cases) {
      const place = `${parent}/${command.join("-")}`;
      assertSuccess(await scope.run("mkdir", [place]), "mkdir");
      try {
        const program = await start(scope, command, place, parent);
        const options = overlay ? ["--link-remap"] : [];
        const result = await survives(scope, program, ...options);
        if (result !== "ok") failures.push(`${command}: ${result}`);
      } catch (error) {
        failures.push(`${command}: ${error}`);
      }
    }
    assertEquals(failures, []);
  });
}

for (const name of PLAIN) {
  Deno.test(`files of a read-only mount of ${name} that others delete survive`, async () => {
    await using scope = new Scope();
    const { places: [place] } = await mountFileSystem(scope, name);
    const mount = scope.path("read-only");
    assertSuccess(
      await scope.bash(
        "mount --bind $0 $1 && mount -o remount,bind,ro $1",
        place,
        mount,
      ),
      "mount",
    );
    const program = await start(
      scope,
      ["ghost_cases", "read_only", PLACE, mount],
      place,
    );
    assertEquals(await survives(scope, program), "ok");
    const { stdout } = await scope.run("findmnt", ["-no", "OPTIONS", mount]);
    assertEquals(stdout.startsWith("ro,"), true, stdout);
  });
}

Deno.test("the cases of files whose path leads elsewhere verify without a checkpoint", async () => {
  await using scope = new Scope();
  for (const command of EVERYWHERE) {
    const place = scope.path(`place-${command.join("-")}`);
    const program = await start(scope, command, place);
    assertEquals(await program.verify(), "ok", `${command}`);
  }
});
