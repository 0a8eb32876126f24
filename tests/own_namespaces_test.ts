/**
 * Trees in namespaces of their own, dumped and restored by a ckpt that is outside: what namespaces_test.ts does
 * inside, where everything is the same.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { CKPT, compile, LONG, Program, Scope, until } from "./harness.ts";
import { kill } from "./libc.ts";
import { container, mountsOf } from "./mounts.ts";
import {
  childOf,
  dump,
  gone,
  isThere,
  killDumps,
  killRestores,
  OPTIONS,
  restore,
} from "./own_namespaces.ts";

const SIGKILL = 9;
const ALL = [
  "--pid",
  "--uts",
  "--ipc",
  "--net",
  "--time",
  "--cgroup",
  "--boottime",
  "100000",
  "--monotonic",
  "70000",
];

/** Starts a program of tests/programs as the first of new namespaces, in a session of its own. */
async function startIn(
  scope: Scope,
  namespaces: readonly string[],
  name: string,
  ...args: string[]
): Promise<Program> {
  const work = scope.path(`work-${name}`);
  const unshare = await scope.startCommand(work, "unshare", [
    "--fork",
    ...namespaces,
    "setsid",
    await compile(name),
    work,
    ...args,
  ]);
  const pid = await until("unshare has a child", () => childOf(unshare.pid));
  const program = new Program(pid, work, unshare.log);
  scope.defer(() => {
    kill(pid, SIGKILL);
  });
  await until(`${name} is ready`, () => isThere(`${work}/ready`) || undefined);
  return program;
}

/** Where /proc/PID/ns leads, by the names of the namespaces. */
function namespacesOf(pid: number | "self"): Map<string, string> {
  return new Map(
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].map((
      name,
    ) => [
      name,
      Deno.readLinkSync(`/proc/${pid}/ns/${name}`),
    ]),
  );
}

function differing(pid: number): string[] {
  const own = namespacesOf("self");
  return [...namespacesOf(pid)].filter(([name, link]) => own.get(name) !== link)
    .map(([name]) => name);
}

const SUBJECTS: Record<
  string,
  { namespaces: string[]; program: string; args?: string[] }
> = {
  "host name, limits, network and clocks": {
    namespaces: ALL,
    program: "ns_state",
  },
  "a network that it shares with ckpt": {
    namespaces: ["--pid", "--uts", "--ipc"],
    program: "ns_state",
    args: ["shared-net"],
  },
  "threads": { namespaces: ALL, program: "threads" },
  "timers": { namespaces: ALL, program: "posix_timers" },
  "deleted files": { namespaces: ["--pid"], program: "ghost_regular" },
  "deleted directories, fifos, links and devices": {
    namespaces: ALL,
    program: "ghost_special",
  },
  "Unix sockets whose names are gone or taken": {
    namespaces: ["--pid"],
    program: "sk_unix_gone",
  },
  "a deleted program and library": {
    namespaces: ["--pid"],
    program: "ghost_program",
    args: ["deleted"],
  },
};

for (
  const [what, { namespaces, program: name, args = [] }] of Object
    .entries(
      SUBJECTS,
    )
) {
  Deno.test(`${name} ${[...args, "in"].join(" ")} ${namespaces.join(" ")}: ${what} survive a dump and a restore, twice`, async () => {
    await using scope = new Scope();
    let program = await startIn(scope, namespaces, name, ...args);
    const kinds = differing(program.pid);
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      // dump returns when all of it is gone, and only the status may be left to be taken
      await gone(program.pid);
      program = await restore(scope, program, scope.path(images));
      assertEquals(differing(program.pid), kinds);
    }
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name} ${[...args, "in"].join(" ")} ${namespaces.join(" ")}: ${what} are as before in a program left running`, async () => {
    await using scope = new Scope();
    const program = await startIn(scope, namespaces, name, ...args);
    await dump(scope, program, scope.path("images"), "-R");
    Deno.writeTextFileSync(`${program.work}/go`, "");
    await until(
      "the program has ended",
      () => isThere(`${program.work}/result`) || undefined,
    );
    assertEquals(program.result(), "ok\n");
  });
}

for (
  const name of [
    "mounts_nested",
    "mounts_covered",
    "mounts_removed",
    "mounts_removed_outside",
    "mounts_detached",
    "mounts_sockets",
  ]
) {
  Deno.test(`${name} survives in all namespaces together, twice`, async () => {
    await using scope = new Scope();
    const work = scope.path(`work-${name}`);
    const unshare = await scope.startCommand(work, "unshare", [
      "--fork",
      ...ALL,
      ...["--mount", "--propagation", "private", "setsid", "bash", "-c"],
      `${container("")}\ncd "$2"\nexec "\${@:3}"`,
      ...[scope.directory, scope.path("root"), work],
      ...[await compile(name), work],
    ]);
    const pid = await until("unshare has a child", () => childOf(unshare.pid));
    let program = new Program(pid, work, unshare.log);
    scope.defer(() => {
      kill(pid, SIGKILL);
    });
    await until("it is ready", () => isThere(`${work}/ready`) || undefined);
    const kinds = differing(program.pid);
    assertEquals(kinds.length, ALL_KINDS);
    const mounts = mountsOf(program.tree());
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      await gone(program.pid);
      program = await restore(scope, program, scope.path(images));
      assertEquals(differing(program.pid), kinds);
      assertEquals(mountsOf(program.tree()), mounts);
    }
    assertEquals(await program.verify(), "ok");
  });
}

/** Of namespaces, but for that of users. */
const ALL_KINDS = 7;

const REFUSED: Record<string, { script: string; why: RegExp }> = {
  "a user namespace": {
    script:
      "exec unshare --user --map-root-user sh -c 'echo x > ready; sleep 100'",
    why: /task \d+.*user namespace/,
  },
  "a nested pid namespace": {
    script: "unshare --fork --pid sh -c 'echo x > ready; sleep 100' & wait",
    why: /task \d+.*pid namespace/,
  },
  "a nested network namespace": {
    script: "unshare --net sh -c 'echo x > ready; sleep 100' & wait",
    why: /task \d+.*net(work)? namespace/,
  },
  "a table of nf_tables": {
    script: "nft add table ip mine; echo x > ready; sleep 100 & wait",
    why: /table.* mine/,
  },
  "a rule as iptables makes it": {
    script: "nft add table ip filter; " +
      "nft add chain ip filter INPUT '{ type filter hook input priority 0; }'; " +
      "nft add rule ip filter INPUT ip saddr 10.1.2.3 drop; " +
      "echo x > ready; sleep 100 & wait",
    why: /table.* filter/,
  },
  "devices beside the loopback": {
    script:
      "ip link add bridge7 type bridge; ip link add veth7 type veth peer name veth8; echo x > ready; sleep 100 & wait",
    why: /device bridge7[^]*device veth[78][^]*device veth[78]/,
  },
  "a queueing discipline": {
    script:
      "ip link set lo up; tc qdisc add dev lo root pfifo; echo x > ready; sleep 100 & wait",
    why: /queueing discipline|qdisc/,
  },
};

for (const [what, { script, why }] of Object.entries(REFUSED)) {
  Deno.test(`${what} in all namespaces is refused by name, and nothing is stopped`, async () => {
    await using scope = new Scope();
    const work = scope.path("work");
    const unshare = await scope.startCommand(work, "unshare", [
      ...["--fork", ...ALL, "setsid", "sh", "-c", script],
    ]);
    await until("ready", () => isThere(`${work}/ready`) || undefined);
    const pid = childOf(unshare.pid)!;
    scope.defer(() => {
      kill(pid, SIGKILL);
    });
    const program = new Program(pid, work, unshare.log);
    // A shell blocks signals until its child has executed the program.
    await until("all of it sleeps", () => {
      const stats = program.tree().map((pid) =>
        Deno.readTextFileSync(`/proc/${pid}/stat`)
      );
      return stats.at(-1)!.includes("(sleep)") &&
          stats.every((stat) => stat.includes(") S ")) || undefined;
    });
    const before = program.observe();
    const images = scope.path("images");
    for (
      const command of [
        ["check", `${pid}`],
        ["dump", "-t", `${pid}`, "-D", images],
      ]
    ) {
      const answer = await scope.ckpt(...command, ...OPTIONS);
      assertEquals(answer.code, EXIT.refused, answer.stderr);
      assertMatch(answer.stdout + answer.stderr, why);
    }
    assertEquals(program.observe(), before);
  });
}

Deno.test("a file with a name that nobody finds, of a tree in a pid namespace of its own, is linked and restored", async () => {
  await using scope = new Scope();
  const work = scope.path("work-ghost_names");
  for (const name of ["base/a", "base/b", "m"]) {
    Deno.mkdirSync(`${work}/${name}`, { recursive: true });
  }
  await scope.unshareMounts(`mount --bind ${work}/base/a ${work}/m`);
  let program = await startIn(scope, ["--pid"], "ghost_names", "hidden");
  const images = scope.path("images");
  await dump(scope, program, images, "--link-remap");
  await gone(program.pid);
  const beside = () =>
    [...Deno.readDirSync(`${work}/base/a`)].map(({ name }) => name);
  assertEquals(beside(), ["link_remap.1"]);
  program = await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
  const cleaned = await scope.ckpt("clean", images);
  assertEquals(cleaned.stdout, `removed ${work}/m/link_remap.1\n`);
  assertEquals(beside(), []);
});

Deno.test("a tree whose first process has another root, in a pid namespace of its own, has its deleted files again", async () => {
  await using scope = new Scope();
  const root = scope.path("root");
  await scope.unshareMounts(`mount --rbind / ${root}`);
  const namespaces = ["--pid", `--root=${root}`];
  let program = await startIn(scope, namespaces, "ghost_regular");
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await gone(program.pid);
    program = await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("a restore that waits ends as its program does, and tells of it", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, ALL, "ns_state");
  const images = scope.path("images");
  await dump(scope, program, images);
  await gone(program.pid);
  Deno.writeTextFileSync(`${program.work}/go`, "");
  const answer = await scope.ckpt(
    "restore",
    "--json",
    "-D",
    images,
    ...OPTIONS,
  );
  assertEquals(answer.code, 0, answer.stderr);
  const { result } = JSON.parse(answer.stdout);
  assertEquals([result.exit, result.signal], [0, undefined]);
  assert(result.pid > 1);
  assertEquals(program.result(), "ok\n");
});

Deno.test("who waits for a restored program hands signals on to it", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const script =
    "trap 'echo term >> term; exit 7' TERM; : > ready; echo x > ready; while :; do sleep 0.05; done";
  const unshare = await scope.startCommand(work, "unshare", [
    "--fork",
    ...ALL,
    "setsid",
    "sh",
    "-c",
    script,
  ]);
  await until("ready", () => isThere(`${work}/ready`) || undefined);
  const pid = childOf(unshare.pid)!;
  const images = scope.path("images");
  await dump(scope, new Program(pid, work, unshare.log), images);
  await gone(pid);
  const waiting = scope.spawnCkpt(
    "restore",
    "-D",
    images,
    "--pidfile",
    `${images}/pid`,
  );
  await until(
    "it runs",
    () =>
      isThere(`${images}/pid`) && isThere(`${images}/stats-restore`) ||
      undefined,
  );
  kill(waiting.pid, 15);
  assertEquals((await waiting.status).code, 7);
  assertEquals(Deno.readTextFileSync(`${work}/term`), "term\n");
});

Deno.test("ckpt check tells about a program in other namespaces, and a dump refuses before it stops anything", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const unshare = await scope.startCommand(work, "unshare", [
    "--fork",
    ...ALL,
    "setsid",
    "sh",
    "-c",
    "ip link add veth0 type veth peer name veth1; ip link set lo up; ip rule add from 10.0.0.0/8 table 7; " +
    "echo 1 > /proc/sys/kernel/shm_rmid_forced; " +
    `python3 -c 'import ctypes, time; ctypes.CDLL(None).shmget(0, 100, 0o1600); print("x", file=open("ready", "w"), flush=True); time.sleep(100)' & wait`,
  ]);
  await until("ready", () => isThere(`${work}/ready`) || undefined);
  const pid = childOf(unshare.pid)!;
  scope.defer(() => {
    kill(pid, SIGKILL);
  });
  // as daemons do that do not care for their children
  const checked = await scope.bash(
    `trap "" CHLD; exec "$0" check --json ${pid}`,
    CKPT,
  );
  assertEquals(checked.code, EXIT.refused, checked.stderr);
  const objects = JSON.parse(checked.stdout).result.reasons.map((
    { object }: { object: string },
  ) => object);
  for (
    const expected of [
      /device veth0/,
      /routing rule/,
      /segment \d+, to which no/,
    ]
  ) {
    assert(
      objects.some((object: string) => expected.test(object)),
      `${expected} in ${objects}`,
    );
  }
  const refused = await scope.ckpt(
    "dump",
    "-t",
    `${pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  const sleeper = childOf(pid)!;
  const other = await scope.ckpt("check", `${sleeper}`);
  assertEquals(other.code, EXIT.refused);
  assert(other.stderr.includes(`ckpt dump -t ${pid}`), other.stderr);
});

Deno.test("a restore in namespaces that fails leaves nothing", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, ALL, "ns_state");
  const images = scope.path("images");
  await dump(scope, program, images);
  await gone(program.pid);
  Deno.writeTextFileSync(`${images}/taken.pid`, "");
  const answer = await scope.ckpt(
    "restore",
    "-d",
    "-D",
    images,
    "--pidfile",
    `${images}/taken.pid`,
    ...OPTIONS,
  );
  assertEquals(answer.code, EXIT.failed, answer.stderr);
  assert(answer.stderr.includes("taken.pid"), answer.stderr);
  await scope.gone();
  const restored = await restore(scope, program, images);
  assertEquals(await restored.verify(), "ok");
});

const KILLS = LONG ? 300 : 12;

async function millisecondsOf(act: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await act();
  return performance.now() - start;
}

for (const which of ["outer", "inner"] as const) {
  Deno.test(`a program in namespaces goes on when the ${which} ckpt is killed at ${KILLS} moments of its dump`, async () => {
    await using scope = new Scope();
    const program = await startIn(scope, ALL, "ns_state");
    const whole = await millisecondsOf(() =>
      dump(scope, program, scope.path("images"), "-R")
    );
    await killDumps(scope, program, KILLS, whole, () => which);
    Deno.writeTextFileSync(`${program.work}/go`, "");
    await until(
      "the program has ended",
      () => isThere(`${program.work}/result`) || undefined,
    );
    assertEquals(program.result(), "ok\n");
  });

  Deno.test(`nothing is left when the ${which} ckpt is killed at ${KILLS} moments of a restore in namespaces`, async () => {
    await using scope = new Scope();
    const program = await startIn(scope, ALL, "ns_state");
    const images = scope.path("images");
    await dump(scope, program, images);
    await gone(program.pid);
    const end = async (restored: Program) => {
      kill(restored.pid, SIGKILL);
      await gone(restored.pid);
    };
    const whole = await millisecondsOf(async () =>
      end(await restore(scope, program, images))
    );
    await killRestores(scope, images, KILLS, whole, () => which);
    assertEquals(await (await restore(scope, program, images)).verify(), "ok");
  });
}
