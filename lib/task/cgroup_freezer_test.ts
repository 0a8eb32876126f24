import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { NR } from "../ffi/syscall.ts";
import { readStat, readStatus, readSyscall } from "../proc/read.ts";
import {
  CgroupFreezer,
  differences,
  isFrozenByItself,
} from "./cgroup_freezer.ts";
import { FrozenTree } from "./frozen_tree.ts";
import { TestCgroup, VERSIONS } from "./testing/test_cgroup.ts";

const LONG_MS = 10_000;

/** Two processes: one that waits, and its child, which counts all the time. */
class Counting implements AsyncDisposable {
  private constructor(
    readonly program: ChildProgram,
    readonly child: number,
    readonly file: string,
  ) {}

  static async start(): Promise<Counting> {
    const file = Deno.makeTempFileSync();
    const program = await ChildProgram.start(`
file = open("${file}", "w+b")
file.truncate(8)
counter = mmap.mmap(file.fileno(), 8)
child = os.fork()
if child == 0:
    libc.prctl(1, 9)
    os.close(report)
    n = 0
    while True:
        n += 1
        counter[:8] = n.to_bytes(8, "little")
ready(child)
`);
    return new Counting(program, program.answer as number, file);
  }

  enter(cgroup: TestCgroup): void {
    cgroup.add(this.root);
    cgroup.add(this.child);
  }

  get root(): number {
    return this.program.pid;
  }

  get count(): bigint {
    return new DataView(Deno.readFileSync(this.file).buffer)
      .getBigUint64(0, true);
  }

  async runs(): Promise<void> {
    const before = this.count;
    while (this.count === before) await sleep(1);
  }

  async standsStill(): Promise<void> {
    const before = this.count;
    await sleep(30);
    assertEquals(this.count, before, "it ran");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
    Deno.removeSync(this.file);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

function tracers(counting: Counting): number[] {
  return [counting.root, counting.child].map((pid) =>
    readStatus(pid).tracerPid
  );
}

for (const version of VERSIONS) {
  const named = (what: string) => `version ${version}: ${what}`;

  Deno.test(
    named("a tree is stopped, its cgroup is thawed, and both go on as before"),
    async () => {
      await using counting = await Counting.start();
      await using cgroup = new TestCgroup(version);
      counting.enter(cgroup);
      {
        using tree = await FrozenTree.freeze(
          counting.root,
          LONG_MS,
          CgroupFreezer.open(cgroup.directory),
        );
        assertEquals(tree.processes.map(({ pid }) => pid), [
          counting.root,
          counting.child,
        ]);
        assertEquals(tree.staysFrozen, false);
        assertEquals(isFrozenByItself(cgroup.directory, version), false);
        await counting.standsStill();
      }
      await counting.runs();
      assertEquals(tracers(counting), [0, 0]);
    },
  );

  Deno.test(
    named("a frozen cgroup stays frozen, and nothing in it runs on"),
    async () => {
      await using counting = await Counting.start();
      await using cgroup = new TestCgroup(version);
      counting.enter(cgroup);
      await cgroup.freeze();
      const before = counting.count;
      for (let i = 0; i < 5; i++) {
        using tree = await FrozenTree.freeze(
          counting.root,
          LONG_MS,
          CgroupFreezer.open(cgroup.directory),
        );
        assert(tree.staysFrozen);
        assertEquals(isFrozenByItself(cgroup.directory, version), false);
        await counting.standsStill();
      }
      assert(cgroup.isFrozen());
      await counting.standsStill();
      assertEquals(counting.count, before);
      assertEquals(tracers(counting), [0, 0]);
      cgroup.switch(false);
      await counting.runs();
    },
  );

  Deno.test(
    named("a frozen cgroup is empty and frozen when its tree was ended"),
    async () => {
      await using counting = await Counting.start();
      await using cgroup = new TestCgroup(version);
      counting.enter(cgroup);
      await cgroup.freeze();
      const before = counting.count;
      const tree = await FrozenTree.freeze(
        counting.root,
        LONG_MS,
        CgroupFreezer.open(cgroup.directory),
      );
      tree.kill();
      assert(isFrozenByItself(cgroup.directory, version));
      assertEquals(CgroupFreezer.open(cgroup.directory).members().size, 0);
      assertEquals(counting.count, before);
    },
  );

  Deno.test(
    named("what job control has stopped is told so, and stays stopped"),
    async () => {
      await using counting = await Counting.start();
      await using cgroup = new TestCgroup(version);
      counting.enter(cgroup);
      Deno.kill(counting.child, "SIGSTOP");
      while (readStat(counting.child).state !== "T") await sleep(1);
      for (const frozen of [false, true]) {
        if (frozen) await cgroup.freeze();
        using tree = await FrozenTree.freeze(
          counting.root,
          LONG_MS,
          CgroupFreezer.open(cgroup.directory),
        );
        assertEquals(tree.processes.map(({ stopSignal }) => stopSignal), [
          0,
          19,
        ]);
      }
      cgroup.switch(false);
      while (readStat(counting.child).state !== "T") await sleep(1);
      await counting.standsStill();
      Deno.kill(counting.child, "SIGCONT");
      await counting.runs();
    },
  );

  Deno.test(
    named(
      "others in the cgroup, and processes outside of it, are named and left as they are",
    ),
    async () => {
      for (const frozen of [false, true]) {
        await using counting = await Counting.start();
        await using stranger = await Counting.start();
        // Thawed first in the end: what version 1 has frozen cannot be killed.
        await using cgroup = new TestCgroup(version);
        stranger.enter(cgroup);
        cgroup.add(counting.root);
        if (frozen) await cgroup.freeze();
        const freezer = CgroupFreezer.open(cgroup.directory);
        const expected = [
          `tasks ${stranger.root}, ${stranger.child}`,
          `task ${counting.child}`,
        ];
        assertEquals(
          freezer.reasonsAgainst(counting.root).map(({ object }) => object),
          expected,
        );
        if (frozen) await stranger.standsStill();
        else await stranger.runs(); // a look freezes nothing
        const error = await assertRejects(
          () => FrozenTree.freeze(counting.root, LONG_MS, freezer),
          CkptError,
        );
        assertEquals(error.exit, EXIT.refused);
        assertEquals(error.reasons.map(({ object }) => object), expected);
        assertEquals(isFrozenByItself(cgroup.directory, version), frozen);
        assertEquals([...tracers(counting), ...tracers(stranger)], [
          0,
          0,
          0,
          0,
        ]);
        await counting.runs();
        if (!frozen) await stranger.runs();
      }
    },
  );

  Deno.test(
    named("what does not freeze in time is named, and all goes on"),
    async () => {
      // The child holds the lock of a file, for it writes from memory whose
      // pages nobody brings (userfaultfd(2)); a thread waits for the lock.
      await using blocked = await ChildProgram.start(`
UFFDIO_API, UFFDIO_REGISTER = 0xc018aa3f, 0xc020aa00
file = os.memfd_create("file")
child = os.fork()
if child == 0:
    libc.prctl(1, 9)
    os.close(report)
    fault = libc.syscall(323, os.O_CLOEXEC)
    fcntl.ioctl(fault, UFFDIO_API, bytearray((0xaa).to_bytes(8, "little") + bytes(16)))
    libc.mmap.restype = ctypes.c_void_p
    area = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
    fcntl.ioctl(fault, UFFDIO_REGISTER, bytearray(b"".join(
        n.to_bytes(8, "little") for n in (area, 4096, 1, 0))))
    libc.write(file, ctypes.c_void_p(area), 64)
while open(f"/proc/{child}/wchan").read() != "handle_userfault":
    pass
wait, go = os.pipe()
thread = threading.Thread(
    target=lambda: (os.read(wait, 1), os.write(file, b"!")), daemon=True)
thread.start()
ready([thread.native_id, go])
`);
      await using cgroup = new TestCgroup(version);
      const [thread, go] = blocked.answer as number[];
      cgroup.add(blocked.pid);
      Deno.writeTextFileSync(`/proc/${blocked.pid}/fd/${go}`, "!");
      const waits = () => {
        const call = readSyscall(thread);
        return readStat(thread).state === "D" && call.kind === "inside" &&
          call.nr === NR.write;
      };
      while (!waits()) await sleep(1);
      using freezer = CgroupFreezer.open(cgroup.directory);
      const error = await assertRejects(() => freezer.freeze(50), CkptError);
      assertEquals(error.exit, EXIT.interrupted);
      assertEquals(error.reasons.map(({ object }) => object), [
        cgroup.directory,
        `thread ${thread} of task ${blocked.pid}`,
      ]);
      assert(error.reasons[0].remedy?.includes("--timeout"));
      freezer[Symbol.dispose]();
      assertEquals(isFrozenByItself(cgroup.directory, version), false);
    },
  );

  Deno.test(
    named("every cgroup below is as it was, whichever were frozen"),
    async () => {
      await using counting = await Counting.start();
      await using cgroup = new TestCgroup(version);
      const below = [cgroup.child("a"), cgroup.child("b")];
      below.push(cgroup.child("c", below[0]));
      const all = [cgroup.directory, ...below];
      for (let bits = 0; bits < 1 << all.length; bits++) {
        const wanted = all.map((_, i) => (bits >> i & 1) === 1);
        cgroup.add(counting.root, all[bits % 4]);
        cgroup.add(counting.child, all[(bits >> 2) % 4]);
        all.forEach((directory, i) => cgroup.switch(wanted[i], directory));
        const states = () =>
          all.map((directory) => isFrozenByItself(directory, version));
        assertEquals(states(), wanted);
        {
          using tree = await FrozenTree.freeze(
            counting.root,
            LONG_MS,
            CgroupFreezer.open(cgroup.directory),
          );
          assertEquals(
            states(),
            all.map(() => false),
            "something stays frozen",
          );
          assertEquals(tree.staysFrozen, bits !== 0);
        }
        assertEquals(states(), wanted);
        all.forEach((directory) => cgroup.switch(false, directory));
      }
      await counting.runs();
    },
  );

  Deno.test(
    named("a ckpt that is killed leaves the cgroup as it was"),
    async () => {
      for (const frozen of [false, true]) {
        await using counting = await Counting.start();
        await using cgroup = new TestCgroup(version);
        counting.enter(cgroup);
        if (frozen) await cgroup.freeze();
        const child = new Deno.Command(Deno.execPath(), {
          args: [
            "eval",
            "--no-check",
            `import { CgroupFreezer } from "${new URL(
              "cgroup_freezer.ts",
              import.meta.url,
            )}";
const freezer = CgroupFreezer.open("${cgroup.directory}");
await freezer.freeze(${LONG_MS});
if (freezer.wasFrozen) freezer.release();
console.log("held");
await new Promise((done) => setTimeout(done, ${LONG_MS}));`,
          ],
          stdout: "piped",
        }).spawn();
        await child.stdout.pipeThrough(new TextDecoderStream()).getReader()
          .read();
        assertEquals(isFrozenByItself(cgroup.directory, version), !frozen);
        child.kill("SIGKILL");
        await child.status;
        while (isFrozenByItself(cgroup.directory, version) !== frozen) {
          await sleep(1);
        }
        if (!frozen) await counting.runs();
      }
    },
  );
}

Deno.test("a directory that cannot be frozen is refused, with the reason", () => {
  const cases: [string, string][] = [
    ["/no/such/directory", "there is no such directory"],
    ["/tmp", "it is not the directory of a cgroup"],
  ];
  for (const version of VERSIONS) {
    const cgroup = new TestCgroup(version);
    const root = cgroup.directory.slice(0, cgroup.directory.lastIndexOf("/"));
    Deno.removeSync(cgroup.directory);
    cases.push([root, "it cannot be frozen: it is the root of its hierarchy"]);
  }
  for (const [directory, why] of cases) {
    const error = assertThrows(() => CgroupFreezer.open(directory), CkptError);
    assertEquals(error.reasons[0].object, `--freeze-cgroup ${directory}`);
    assert(error.reasons[0].why.startsWith(why), error.reasons[0].why);
  }
});

Deno.test("differences are told by side, ckpt itself apart, and no endless list", () => {
  const objects = (members: number[], tree: number[]) =>
    differences("/c", new Set(members), new Set(tree))
      .map(({ object }) => object);
  assertEquals(objects([1, 2], [2, 1]), []);
  assertEquals(objects([1, 2, 3], [1]), ["tasks 2, 3"]);
  assertEquals(objects([1], [1, 4]), ["task 4"]);
  assertEquals(objects([5], [6]), ["task 5", "task 6"]);
  assertEquals(objects([Deno.pid + 1, Deno.pid], [Deno.pid + 1]), [
    `task ${Deno.pid}`,
  ]);
  const many = Array.from({ length: 13 }, (_, i) => i + 20);
  assertEquals(objects(many, []), [
    "tasks 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 3 more",
  ]);
});
