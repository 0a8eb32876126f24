/** Restoring a tree into a running system: taken ids, parents, endings; and all of the tree, or nothing. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  CKPT,
  compile,
  dump,
  type Program,
  restore,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { kill, parentOf, reap } from "./libc.ts";

const SIGKILL = 9;
const SIGTERM = 15;
const SIGCONT = 18;

/** Takes the pid; returns what gives it back. */
async function take(scope: Scope, pid: number, as: string) {
  const output = `${scope.directory}/taken-${pid}`;
  const holder = new Deno.Command("sh", {
    args: [
      "-c",
      `exec "$0" "$@" >${output}`,
      await compile("take_pid"),
      `${pid}`,
      as,
    ],
    stdin: "null",
  }).spawn();
  let ended = false;
  const status = holder.status.then((status) => {
    ended = true;
    return status;
  });
  const lives = Number(
    await until(`pid ${pid} is taken`, () => {
      if (ended) throw new Error(`pid ${pid} cannot be taken`);
      try {
        return /^ready (\d+)/.exec(Deno.readTextFileSync(output))?.[1];
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      }
    }),
  );
  const release = async () => {
    if (ended) return;
    kill(lives, SIGKILL);
    kill(holder.pid, SIGKILL);
    await status;
    await until(`pid ${pid} is free`, () => {
      reap(lives);
      reap(pid);
      return kill(lives, 0) ? undefined : true;
    });
  };
  scope.defer(release);
  return { lives, release };
}

async function fails(scope: Scope, pids: number[], images: string) {
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assert(answer.code !== EXIT.ok, "a restore that must fail");
  await scope.gone();
  return { answer, left: pids.filter((pid) => kill(pid, 0)) };
}

const TAKEN: [string, string, (pids: number[], tids: number[]) => number][] = [
  ["the root's pid", "process", (pids) => pids[0]],
  ["a child's pid", "process", (pids) => pids[pids.length - 1]],
  ["a thread's id", "process", (_, tids) => tids[0]],
  ["a child's pid as thread id", "thread", (pids) => pids[1]],
  ["a child's pid as session", "session", (pids) => pids[1]],
  ["a child's pid as process group", "group", (pids) => pids[1]],
];
for (const [what, as, which] of TAKEN) {
  Deno.test(`a restore names who has ${what}, and leaves nothing`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_shape", "1", "2", "1");
    const pids = program.tree();
    const tids = pids.flatMap((pid) =>
      Array.from(
        Deno.readDirSync(`/proc/${pid}/task`),
        ({ name }) => Number(name),
      )
    ).filter((tid) => !pids.includes(tid));
    const images = scope.path("images");
    await dump(scope, program, images);
    const taken = which(pids, tids);
    const holder = await take(scope, taken, as);
    const answer = await scope.ckpt("restore", "-d", "-D", images);
    assertEquals(answer.code, EXIT.refused, answer.stderr);
    assertMatch(answer.stderr, new RegExp(`\\b${taken}\\b`));
    assertMatch(answer.stderr, /take_pid/);
    assertEquals(
      pids.filter((pid) => pid !== taken && kill(pid, 0)),
      [],
      "tasks of the failed restore",
    );
    await holder.release();
    await scope.gone();
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
  });
}

Deno.test("a restore that fails in the middle of a tree leaves nothing, and the images restore", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_churn");
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt("dump", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  await program.ended();
  await scope.gone();
  const progress = Deno.readFileSync(`${program.work}/progress`);
  // so many tasks that ckpt itself can run, and too few for the tree: the limit is found by trying
  let failures = 0;
  for (let limit = 8; limit <= 64 && failures < 8; limit++) {
    const answer = await scope.bash(
      `group=/sys/fs/cgroup/pids/ckpt-test-$$
       mkdir $group && echo ${limit} >$group/pids.max || exit 77
       (echo $BASHPID >$group/cgroup.procs && exec "$0" restore -d -D "$1")
       code=$?
       for pid in $(cat $group/cgroup.procs); do echo left $pid; echo $pid >/sys/fs/cgroup/pids/cgroup.procs; done
       rmdir $group
       exit $code`,
      CKPT,
      images,
    );
    if (answer.code === 77) {
      console.log("there is no pids cgroup to limit a restore with");
      break;
    }
    if (answer.code === EXIT.ok) {
      program.restored();
      await program.kill();
      await scope.gone();
      break;
    }
    failures++;
    assertEquals(answer.stdout, "", "tasks of the failed restore");
    assertEquals(scope.strangers(), [], "tasks of the failed restore");
    assertEquals(Deno.readFileSync(`${program.work}/progress`), progress);
  }
  Deno.writeFileSync(`${program.work}/progress`, progress);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a restore that finds a file of the last process missing starts nothing", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_shape", "0", "4", "0");
  const pids = program.tree();
  const images = scope.path("images");
  await dump(scope, program, images);
  const file = `${program.work}/file-0.3`;
  Deno.renameSync(file, `${file}-away`);
  const { answer, left } = await fails(scope, pids, images);
  assertMatch(answer.stderr, /file-0\.3/);
  assertEquals(left, [], "tasks of the failed restore");
  Deno.renameSync(`${file}-away`, file);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("the root of a tree is a child of who adopts orphans, or with --restore-sibling of who started ckpt", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_child");
  const images = scope.path("images");
  await dump(scope, program, images);
  for (const sibling of [false, true]) {
    const done = `${scope.directory}/done-${sibling}`;
    const shell = new Deno.Command("sh", {
      args: [
        "-c",
        `"$0" restore -d ${
          sibling ? "-S" : ""
        } --pidfile ${sibling}.pid -D "$1"; echo $? >"$2"; read never_comes`,
        CKPT,
        images,
        done,
      ],
      stdin: "piped",
    }).spawn();
    const answer = await until("the restore is done", () => {
      try {
        return Deno.readTextFileSync(done).trim() || undefined;
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      }
    });
    assertEquals(answer, "0");
    program.restored();
    assertEquals(parentOf(program.pid), sibling ? shell.pid : Deno.pid);
    assertEquals(program.tree().length, 2);
    assertEquals(
      Deno.readTextFileSync(`${images}/${sibling}.pid`).trim(),
      `${program.pid}`,
    );
    await shell.stdin.close();
    await shell.status;
    if (!sibling) {
      await program.kill();
      await scope.gone();
    }
  }
  assertEquals(await program.verify(), "ok");
});

for (const [signal, code] of [[undefined, 0], [SIGTERM, 143]] as const) {
  Deno.test(`a restore of a tree that waits exits with ${code} as the root does`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_child");
    const images = scope.path("images");
    const pids = program.tree();
    await dump(scope, program, images);
    // as daemons do that do not care for their children
    const waiting = new Deno.Command("bash", {
      args: [
        "-c",
        `trap "" CHLD; exec "$@"`,
        "-",
        CKPT,
        "restore",
        "-D",
        images,
      ],
      stdin: "null",
      stderr: "piped",
    }).spawn();
    await until(
      "the tree runs",
      () => kill(pids[1], 0) && parentOf(pids[0]) === waiting.pid || undefined,
    );
    // a program is there before it runs: only then it sees the file or the signal as a running one does
    await sleep(100);
    if (signal === undefined) Deno.writeTextFileSync(`${program.work}/go`, "");
    else kill(program.pid, signal);
    const output = await waiting.output();
    assertEquals(output.code, code, new TextDecoder().decode(output.stderr));
    assert(!program.exists());
  });
}

function states(program: Program): string[] {
  return program.tree().map((pid) =>
    /^State:\t(.)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1] ??
      ""
  );
}

Deno.test("a tree left stopped by a dump and by a restore stands still as a whole, and goes on when told to", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_shape", "2", "2", "1");
  const before = program.observe();
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt("dump", "-s", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  assertEquals(new Set(states(program)), new Set(["T"]));
  for (const pid of program.tree()) kill(pid, SIGCONT);
  assertUnchanged(before, program.observe(), "after it was told to go on");
  assertEquals(await program.verify(), "ok");
  program.forget();
  await restore(scope, program, images, "-s");
  assertEquals(new Set(states(program)), new Set(["T"]));
  for (const pid of program.tree()) kill(pid, SIGCONT);
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});

Deno.test("a pid that is no root of a tree can be dumped with what is below it alone", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_shape", "2", "1", "0");
  const [, ...below] = program.tree();
  const inner = below.find((pid) =>
    Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`) !== ""
  );
  const answer = await scope.ckpt(
    "dump",
    "-R",
    "-j",
    "-t",
    `${inner}`,
    "-D",
    scope.path("images"),
  );
  assertSuccess(answer, "dump");
  assertEquals(await program.verify(), "ok");
});
