/** The readers and the parsers against the kernel that runs. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { CAPABILITIES } from "./capability.ts";
import { RLIM_INFINITY } from "./limits.ts";
import { PROT } from "./maps.ts";
import {
  hasCapability,
  listDescriptors,
  listProcesses,
  listThreads,
  readAuxv,
  readCgroup,
  readChildren,
  readComm,
  readFdInfo,
  readLimits,
  readLoginuid,
  readMaps,
  readMountInfo,
  readOomScoreAdj,
  readPersonality,
  readSmaps,
  readStat,
  readStatus,
  readSyscall,
  readThreadStat,
  readTimers,
  readTimerslackNs,
  readVmLocked,
  readWchan,
} from "./read.ts";

const self = Deno.pid;

/** Runs a shell command as long as the body runs. */
async function withShell(
  command: string,
  body: (pid: number) => void | Promise<void>,
): Promise<void> {
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", `${command}; echo; read line`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  try {
    await output.read();
    await body(child.pid);
  } finally {
    await child.stdin.close();
    await output.cancel();
    await child.status;
  }
}

Deno.test("status and stat of this process agree with what Deno knows", () => {
  const status = readStatus(self);
  const stat = readStat(self);
  assertEquals(status.tgid, self);
  assertEquals(stat.pid, self);
  assertEquals(stat.ppid, Deno.ppid);
  assertEquals(status.uid[0], Deno.uid());
  assertEquals(status.gid[0], Deno.gid());
  assertEquals(status.name, readComm(self));
  assertEquals(stat.comm, readComm(self));
  assertEquals(status.umask, Deno.umask());
  assertEquals(status.vmLocked, readVmLocked(self));
});

Deno.test("the addresses of stat lie in the mappings", () => {
  const stat = readStat(self);
  const at = (address: number) =>
    readMaps(self).find((m) => m.start <= address && address < m.end);
  assert((at(stat.startCode)!.prot & PROT.exec) !== 0);
  assertEquals(at(stat.startStack)!.path, "[stack]");
  assertEquals(at(stat.argStart)!.path, "[stack]");
  assertEquals(at(stat.envEnd - 1)!.path, "[stack]");
});

Deno.test("maps and smaps ascend and name the program", () => {
  const maps = readMaps(self);
  const smaps = readSmaps(self);
  for (let i = 1; i < maps.length; i++) {
    assert(maps[i - 1].end <= maps[i].start);
  }
  const program = Deno.execPath();
  assert(maps.some((mapping) => mapping.path === program));
  const code = smaps.find((mapping) =>
    mapping.path === program && (mapping.prot & PROT.exec) !== 0
  )!;
  assert(code.vmFlags.has("ex"));
  assert(code.vmFlags.has("mr"));
  const stack = smaps.find((mapping) => mapping.path === "[stack]")!;
  assert(stack.vmFlags.has("gd"));
});

Deno.test("limits are those that the shell set", async () => {
  await withShell(
    "ulimit -S -n 100; ulimit -H -n 200; ulimit -S -c 0",
    (pid) => {
      const limits = readLimits(pid);
      assertEquals([limits[7].soft, limits[7].hard], [100n, 200n]);
      assertEquals(limits[4].soft, 0n);
      assert(limits[9].soft <= RLIM_INFINITY);
    },
  );
});

Deno.test("auxv tells the page size and the uid", () => {
  const auxv = new Map(readAuxv(self));
  assertEquals(auxv.get(6n), 4096n);
  assertEquals(auxv.get(11n), BigInt(Deno.uid()!));
});

Deno.test("fdinfo tells position and flags of a descriptor", async () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(path, "0123456789");
    await withShell(`exec 7<>'${path}'; head -c 4 <&7 >/dev/null`, (pid) => {
      const info = readFdInfo(pid, 7);
      assert([4n, 10n].includes(info.pos));
      assertEquals(info.flags & 3, 2);
      assertEquals(info.locks, []);
      const mounts = readMountInfo(pid);
      assert(mounts.some((mount) => mount.mountId === info.mntId));
      assert(listDescriptors(pid).includes(7));
    });
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("a child is listed, with its cgroup", async () => {
  await withShell("sleep 1000 & echo; read line; kill $!", (pid) => {
    const [child] = readChildren(pid);
    assertEquals(readStat(child).ppid, pid);
    assert(readChildren(self).includes(pid));
    assert(listProcesses().includes(child));
    assertEquals(listThreads(pid), [pid]);
    assertEquals(readCgroup(pid), readCgroup(self));
    assertEquals(readTimers(pid), []);
  });
});

Deno.test("the single values of a child parse", async () => {
  await withShell("echo 500 > /proc/self/oom_score_adj", (pid) => {
    readPersonality(pid);
    readLoginuid(pid);
    readWchan(pid);
    // The shell that redirects is the shell itself: echo is a builtin.
    assertEquals(readOomScoreAdj(pid), 500);
    assert(readTimerslackNs(pid) > 0n);
    assert(readSyscall(pid).kind !== "outside");
  });
});

Deno.test("the threads of this process are listed and can be read", () => {
  const threads = listThreads(self);
  assert(threads.includes(self));
  assert(threads.length > 1);
  for (const tid of threads) {
    try {
      assertEquals(readStatus(tid).tgid, self);
      assertEquals(readStat(tid).pid, tid);
    } catch (error) {
      // Deno ends idle threads when it likes.
      if (!(error instanceof CkptError) || error.exit !== EXIT.gone) {
        throw error;
      }
    }
  }
});

Deno.test("a mapped name of any bytes is read without loss", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    // A copy of the shell under such a name maps itself.
    await withShell(
      `name="$(printf 'p\\377 \\n\\303q')"; cp /bin/sh "${folder}/$name"; ` +
        `"${folder}/$name" -c "echo; read line; exit"`,
      (pid) => {
        const [child] = readChildren(pid);
        const name = "p\udcff \n\udcc3q";
        assertEquals(
          readMaps(child).find((mapping) => mapping.path.startsWith(folder))
            ?.path,
          `${folder}/${name}`,
        );
        assertEquals(readComm(child), name);
        assertEquals(readStatus(child).name, name);
        assertEquals(readStat(child).comm, name);
      },
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("hasCapability agrees with the effective set", () => {
  const mask = readStatus(self).capEff;
  const held = CAPABILITIES.filter(hasCapability);
  const rebuilt = held.reduce(
    (sum, name) => sum | (1n << BigInt(CAPABILITIES.indexOf(name))),
    0n,
  );
  assertEquals(rebuilt, mask & ((1n << BigInt(CAPABILITIES.length)) - 1n));
});

Deno.test("a task that is not there is an error of its own", () => {
  // Larger than any pid_max.
  const error = assertThrows(() => readStatus(2 ** 22 + 1), CkptError);
  assertEquals(error.exit, EXIT.gone);
  assertEquals(error.reasons[0].object, `task ${2 ** 22 + 1}`);
  const list = assertThrows(() => listThreads(2 ** 22 + 1), CkptError);
  assertEquals(list.exit, EXIT.gone);
});

Deno.test("a zombie gives empty texts or is gone, never another error", async () => {
  // exec makes the parent a program that never waits for the child.
  const parent = new Deno.Command("/bin/sh", {
    args: ["-c", "true & exec sleep 1000"],
  }).spawn();
  try {
    const zombie = await firstZombieOf(parent.pid);
    assertEquals(readMaps(zombie), []);
    assertEquals(readSmaps(zombie), []);
    assertEquals(readStatus(zombie).vmLocked, undefined);
    assertEquals(readStat(zombie).state, "Z");
    for (const read of [readAuxv, readMountInfo]) {
      const error = assertThrows(() => read(zombie), CkptError);
      assertEquals(error.exit, EXIT.gone);
      assertEquals(error.reasons[0].object, `task ${zombie}`);
    }
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
  }
});

async function firstZombieOf(pid: number): Promise<number> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    for (const child of readChildren(pid)) {
      if (readStat(child).state === "Z" && readComm(pid) === "sleep") {
        return child;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`no zombie appeared under task ${pid}`);
}

Deno.test("a closed descriptor is an error that names it", () => {
  const error = assertThrows(() => readFdInfo(self, 999_999), CkptError);
  assertEquals(error.exit, EXIT.gone);
  assertEquals(error.reasons[0].object, `descriptor 999999 of task ${self}`);
});

Deno.test("how a leader ended is told by the thread, also while its process is stopped", async () => {
  await using child = await ChildProgram.start(`
pid = os.fork()
if pid == 0:
    libc.prctl(1, 9)
    os.close(report)
    threading.Thread(target=signal.pause, daemon=True).start()
    libc.syscall(60, 7)
ready(pid)
`);
  const pid = child.answer as number;
  const settle = async (done: () => boolean) => {
    while (!done()) await new Promise((wait) => setTimeout(wait, 1));
  };
  await settle(() => readStat(pid).state === "Z");
  const [, other] = listThreads(pid);
  assertEquals(readThreadStat(pid, pid).exitCode, 7 << 8);
  Deno.kill(pid, "SIGSTOP");
  await settle(() => readStat(other).state === "T");
  const SIGSTOP = 19;
  assertEquals(readStat(pid).exitCode, SIGSTOP);
  assertEquals(readThreadStat(pid, pid).exitCode, 7 << 8);
  assertEquals(readThreadStat(pid, other).pid, other);
});
