import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { FrozenProcess } from "../ffi/frozen_process.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { pipesAmong, TreeDescriptions } from "../files/descriptors.ts";
import { OutsideHolders } from "../files/outside_holders.ts";
import { listThreads, readStat } from "../proc/read.ts";
import { FilesInUse } from "../ghost/files_in_use.ts";
import {
  judge,
  lookAtProcess,
  noteFiles,
  refuseImpossible,
  type Survey,
  type SurveyOptions,
} from "./survey.ts";
import { surveyRunning } from "./survey_tree.ts";

const OPTIONS = { shellJob: false, external: [] };

/** Of one process, as the root of a tree. */
function survey(pid: number, options: Partial<SurveyOptions> = {}): Survey {
  const seen = lookAtProcess(pid);
  const pids = new Set([pid]);
  const outside = new OutsideHolders(pipesAmong([seen]), pids);
  return judge(
    seen,
    { root: pid, ...OPTIONS, ...options },
    new TreeDescriptions(pids, outside),
  );
}

/** Why a script's process cannot be saved. */
async function reasonsFor(
  script: string,
  session = true,
): Promise<
  { whys: string[]; objects: string[]; pid: number; answer: unknown }
> {
  await using child = await ChildProgram.start(script, session);
  const { reasons } = survey(child.pid);
  return {
    whys: reasons.map(({ why }) => why),
    objects: reasons.map(({ object }) => object),
    pid: child.pid,
    answer: child.answer,
  };
}

Deno.test("a plain program with threads can be saved, and is told whole", async () => {
  await using child = await ChildProgram.start(`
gate = threading.Lock()
gate.acquire()
for i in range(3):
    threading.Thread(target=gate.acquire, daemon=True).start()
os.umask(0o27)
ready()
`);
  const { pid } = child;
  const found = survey(pid);
  assertEquals(found.reasons, []);
  assertEquals(found.neededOptions, []);
  assertEquals(found.pid, pid);
  assertEquals(found.exe.path, Deno.readLinkSync(`/proc/${pid}/exe`));
  assertEquals([found.cwd.path, found.root.path], ["/", "/"]);
  assertEquals(found.status.umask, 0o27);
  assertEquals(found.descriptors.descriptors.map(({ fd }) => fd), [0, 1, 2]);
  assertEquals(
    found.mappings.length >= found.vmas.vmas.length,
    true,
  );
  const paths = found.mappedFiles.map(({ vma }) => vma.path);
  assertEquals(new Set(paths).size, paths.length, "a file is looked at twice");
  assert(paths.includes(found.exe.path));
  assertEquals(surveyRunning(pid, OPTIONS)?.reasons, []);
});

Deno.test("a program that is stopped for the dump is told the same", async () => {
  await using child = await ChildProgram.start("ready()");
  const running = survey(child.pid);
  using frozen = FrozenProcess.freeze(child.pid, 1000);
  const stopped = lookAtProcess(frozen.pid);
  assertEquals(stopped.mappings, running.mappings);
  assertEquals(stopped.exe, running.exe);
});

Deno.test("a session of the outside is refused, and allowed by --shell-job", async () => {
  await using child = await ChildProgram.start("ready()", false);
  const { session } = readStat(child.pid);
  const { reasons, neededOptions } = survey(child.pid);
  assertEquals(reasons.map(({ why }) => why), [
    `it belongs to session ${session} of the outside`,
  ]);
  assertEquals(neededOptions, ["--shell-job"]);
  assertEquals(survey(child.pid, { shellJob: true }).reasons, []);
  // Where it is not the root, it is the root that needs it.
  assertEquals(survey(child.pid, { root: 1 }).reasons, []);
});

Deno.test("other namespaces are refused by name", async () => {
  const { whys } = await reasonsFor(`
CLONE_NEWUTS, CLONE_NEWIPC = 0x4000000, 0x8000000
assert libc.unshare(CLONE_NEWUTS | CLONE_NEWIPC) == 0
ready()
`);
  assertEquals(whys.length, 2);
  assert(/^its ipc namespace ipc:\[\d+\] is not the one of ckpt/.test(whys[0]));
  assert(/^its uts namespace uts:\[\d+\] is not the one of ckpt/.test(whys[1]));
});

Deno.test("threads with descriptors or directories of their own are refused", async () => {
  for (
    const [flag, what] of [
      [0x200, "directories and umask"],
      [0x400, "descriptors"],
    ] as const
  ) {
    const { whys, objects, answer, pid } = await reasonsFor(`
gate = threading.Lock()
gate.acquire()
done = threading.Semaphore(0)
def apart():
    global own
    assert libc.unshare(${flag}) == 0
    own = threading.get_native_id()
    if ${flag} == 0x400:
        os.close(report)
    done.release()
    gate.acquire()
threading.Thread(target=apart, daemon=True).start()
done.acquire()
ready(own)
`);
    assertEquals(objects, [`thread ${answer} of task ${pid}`]);
    assertEquals(whys, [
      `it has its own ${what} (unshare), which is not supported`,
    ]);
  }
});

Deno.test("a stopped program can be saved", async () => {
  await using child = await ChildProgram.start("ready()");
  Deno.kill(child.pid, "SIGSTOP");
  while (readStat(child.pid).state !== "T") {
    await new Promise((done) => setTimeout(done, 1));
  }
  assertEquals(survey(child.pid).reasons, []);
  assertEquals(surveyRunning(child.pid, OPTIONS)?.reasons, []);
});

Deno.test("deleted files in use are noted once each, with their first holder: directory, mapping, descriptor", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await using child = await ChildProgram.start(`
path = ${JSON.stringify(directory)}
file = os.open(path + "/mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(file, 4096)
area = mmap.mmap(file, 4096)
os.unlink(path + "/mapped")
os.mkdir(path + "/cwd")
os.chdir(path + "/cwd")
os.rmdir(path + "/cwd")
other = os.open(path + "/other", os.O_RDONLY | os.O_CREAT)
inode = os.fstat(other).st_ino
os.unlink(path + "/other")
ready([int(line.split()[1]) for line in open("/proc/self/fdinfo/%d" % other) if "mnt_id" in line] + [inode])
`);
    const [mount, inode] = child.answer as [number, number];
    const files = new FilesInUse();
    noteFiles(lookAtProcess(child.pid), files, [
      `file[${mount.toString(16)}:${inode}]`,
    ]);
    assertEquals(
      files.lost.map(({ link, holder, written }) => [link, holder, written]),
      [
        [
          `${directory}/mapped (deleted)`,
          "descriptor 3",
          true,
        ],
        [
          `${directory}/cwd (deleted)`,
          "the working directory",
          false,
        ],
      ],
    );
    const { reasons } = survey(child.pid);
    assertEquals(reasons, []);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("all reasons are told at once", async () => {
  const { whys } = await reasonsFor(
    `
faults = [libc.syscall(323, 0) for _ in "abc"]
ready()
`,
    false,
  );
  assertEquals(whys.length, 4);
});

/** Undefined in a pid namespace that has none. */
function kernelThread(): number | undefined {
  const PF_KTHREAD = 0x200000;
  return listPids().find((pid) => {
    try {
      return (readStat(pid).flags & PF_KTHREAD) !== 0;
    } catch (error) {
      if (error instanceof CkptError && error.exit === EXIT.gone) return false;
      throw error;
    }
  });
}

function listPids(): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name))
    .filter((pid) => pid > 0);
}

Deno.test("what has no memory of its own is refused at once", async () => {
  await using child = await ChildProgram.start(`
gate = threading.Lock()
gate.acquire()
threading.Thread(target=gate.acquire, daemon=True).start()
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
ready(zombie)
`);
  const why = (pid: number) => {
    const error = assertThrows(
      () => refuseImpossible(pid, "dumping"),
      CkptError,
    );
    assertEquals(error.exit, EXIT.refused);
    assertEquals(error.reasons[0].object, `task ${pid}`);
    return error.reasons[0].why;
  };
  refuseImpossible(child.pid, "dumping");
  assertEquals(why(Deno.pid), "this is ckpt itself");
  const kernel = kernelThread();
  if (kernel !== undefined) {
    assertEquals(why(kernel), "it is a thread of the kernel");
  }
  assertEquals(
    why(child.answer as number),
    "it has ended already (a zombie)",
  );
  const [, thread] = [...listThreads(child.pid)];
  assertEquals(why(thread), `it is a thread of process ${child.pid}`);
  assertEquals(survey(child.pid).reasons, []);
});

Deno.test("a process that does not exist is told as gone", () => {
  for (
    const look of [
      () => refuseImpossible(99_999_999, "dumping"),
      () => surveyRunning(99_999_999, OPTIONS),
    ]
  ) {
    assertEquals(assertThrows(look, CkptError).exit, EXIT.gone);
  }
});
