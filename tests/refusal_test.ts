/**
 * What cannot be saved yet is refused before the program is touched: exit code 3, every reason at once. Whoever adds
 * a kind takes it out of the list here and gives it a program of its own.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { assertUnchanged, type Program, Scope } from "./harness.ts";

/** Kinds of `holds` that show as descriptors. */
const DESCRIPTORS = [
  "tcp",
  "vsock",
  "fanout-program",
  "fanotify-permission",
  "io_uring-of-ended-thread",
  "unattached-tun",
  "userfaultfd",
  "mqueue",
  "perf",
  "landlock",
  "secret-memory",
  "bpf-program",
  "bpf-link",
  "btf",
  "epoll-of-outside",
  "pidfd-of-outside",
];

/** Kinds that are no descriptors, with what the message must speak of. */
const OTHERS: Record<string, RegExp> = {
  "child-in-pid-namespace": /pid namespace|namespace.*pid/,
  "traced-child": /traced/,
  "long-path": /descriptor \d+ of task \d+: its path has more than 4095 bytes/,
};

/** Kinds that only the task itself can tell; to find them it may have to be stopped. */
const INSIDE: Record<string, RegExp> = {
  "aio-of-parent": /aio|asynchronous/i,
  "reuseport-ebpf":
    /descriptor \d+ \(socket:.*SO_ATTACH_REUSEPORT_EBPF[^]*SO_DETACH_REUSEPORT_BPF/,
  "ldt": /LDT|local descriptor table/i,
  "memory-policy": /memory policy/,
};

/** How often the sleeping thread of `holds` was scheduled: unchanged means that nothing ever stopped it. */
function switches(program: Program): string[] {
  const tid = Deno.readTextFileSync(`${program.work}/sleeper`).trim();
  const status = Deno.readTextFileSync(
    `/proc/${program.pid}/task/${tid}/status`,
  );
  return status.split("\n").filter((line) => /ctxt_switches/.test(line));
}

function imagesIn(directory: string): string[] {
  return Array.from(Deno.readDirSync(directory), (entry) => entry.name)
    .filter((name) => name.endsWith(".img"));
}

/** Dumps, expects a refusal and an unharmed program; returns the message. */
async function refused(
  scope: Scope,
  program: Program,
  untouched: boolean,
): Promise<string> {
  const before = program.observe();
  const switchesBefore = switches(program);
  const images = scope.path("images");
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    images,
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertUnchanged(before, program.observe(), "after the refusal");
  if (untouched) {
    assertEquals(switches(program), switchesBefore, "it was stopped");
  }
  assertEquals(imagesIn(images), []);
  assertEquals(await program.verify(), "ok");
  return answer.stderr;
}

function held(program: Program): string[] {
  return Deno.readTextFileSync(`${program.work}/held`).trim().split("\n")
    .map((line) => line.split(" ")[1]);
}

/** How a message names a descriptor: with its number and, in brackets, what it leads to. */
function named(fd: string, program: Program): RegExp {
  return new RegExp(`descriptor ${fd} \\(.*\\) of task ${program.pid}\\b`);
}

for (const kind of DESCRIPTORS) {
  Deno.test(`a program that holds a ${kind} is refused by its descriptor and unharmed`, async () => {
    await using scope = new Scope();
    const program = await scope.start("holds", kind);
    const message = await refused(scope, program, true);
    for (const fd of held(program)) {
      assertMatch(message, named(fd, program));
    }
  });
}

Deno.test("an epoll that watches what only the outside has open is refused, and told who has it", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "epoll-of-outside");
  assertMatch(
    await refused(scope, program, true),
    /open any more, but task \d+ \(holds\) outside of the program, as descriptor \d+/,
  );
});

for (const [kind, words] of Object.entries(OTHERS)) {
  Deno.test(`a program with a ${kind} is refused and unharmed`, async () => {
    await using scope = new Scope();
    const program = await scope.start("holds", kind);
    assertMatch(await refused(scope, program, true), words);
  });
}

for (const [kind, words] of Object.entries(INSIDE)) {
  Deno.test(`a program with ${kind} state is refused and goes on`, async () => {
    await using scope = new Scope();
    const program = await scope.start("holds", kind);
    assertMatch(await refused(scope, program, false), words);
  });
}

/** Pid of the child that a kind of `holds` has made. */
function childOf(program: Program): number {
  return Number(Deno.readTextFileSync(`${program.work}/child`));
}

Deno.test("a descriptor that a child holds is refused as the child's, and nobody was stopped", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "child-holds");
  const message = await refused(scope, program, true);
  assertMatch(
    message,
    new RegExp(
      `descriptor \\d+ \\(anon_inode:\\[userfaultfd\\]\\) of task ${
        childOf(program)
      }\\b`,
    ),
  );
});

Deno.test("all reasons are named at once", async () => {
  await using scope = new Scope();
  const kinds = [
    ...DESCRIPTORS,
    "child-holds",
  ];
  const program = await scope.start("holds", ...kinds);
  const message = await refused(scope, program, true);
  for (const fd of held(program)) {
    assertMatch(message, named(fd, program));
  }
  assertMatch(message, new RegExp(`of task ${childOf(program)}\\b`));
});

Deno.test("check names the same reasons without stopping the program", async () => {
  await using scope = new Scope();
  const program = await scope.start(
    "holds",
    "fanotify-permission",
    "userfaultfd",
  );
  const before = switches(program);
  const answer = await scope.ckpt("check", `${program.pid}`);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  for (const fd of held(program)) {
    assertMatch(answer.stdout + answer.stderr, named(fd, program));
  }
  assertEquals(switches(program), before);
  assertEquals(await program.verify(), "ok");
});

Deno.test("check finds nothing against a program that can be dumped", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  const before = switches(program);
  const answer = await scope.ckpt("check", `${program.pid}`);
  assertEquals(answer.code, EXIT.ok, answer.stderr);
  assertEquals(switches(program), before);
  assertEquals(await program.verify(), "ok");
});
