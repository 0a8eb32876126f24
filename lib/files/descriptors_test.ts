import { assert, assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { O, stat } from "../ffi/syscall.ts";
import { NO_OWNER } from "./file_table.ts";
import {
  type DescriptorOptions,
  type DescriptorPlan,
  GONE,
  lookAtDescriptors,
  pipesAmong,
  planDescriptors,
  terminalKey,
  TreeDescriptions,
  TreeLook,
} from "./descriptors.ts";
import { OutsideHolders } from "./outside_holders.ts";

const OPTIONS: DescriptorOptions = {
  shellJob: false,
  controllingTerminal: 0,
  external: [],
};

function plan(
  pid: number,
  options: Partial<DescriptorOptions> = {},
): DescriptorPlan {
  return planTree([pid], options)[0];
}

/** The plans for processes that are one tree. */
function planTree(
  pids: readonly number[],
  options: Partial<DescriptorOptions> = {},
): DescriptorPlan[] {
  const look = new TreeLook();
  const processes = pids.map((pid) => ({
    pid,
    descriptors: lookAtDescriptors(pid, look),
  }));
  const all = new Set(pids);
  const holders = new OutsideHolders(pipesAmong(processes), all);
  const tree = new TreeDescriptions(all, holders);
  return processes.map(({ pid, descriptors }) =>
    planDescriptors(pid, descriptors, { ...OPTIONS, ...options }, tree)
  );
}

/** What a script gives to a second process, which ends with the first. */
const FORK = `
def fork(use=lambda: None):
    gate, opened = os.pipe()
    child = os.fork()
    if child == 0:
        libc.prctl(1, 9)
        os.close(gate)
        os.close(report)
        use()
        os.close(opened)
        while True:
            signal.pause()
    os.close(opened)
    os.read(gate, 1)
    os.close(gate)
    return child
`;

/** The plan for a script that opens descriptors. */
async function planFor(
  script: string,
): Promise<{ plan: DescriptorPlan; pid: number }> {
  await using child = await ChildProgram.start(script);
  return { plan: plan(child.pid), pid: child.pid };
}

Deno.test("descriptors are told with position, flags and close-on-exec", async () => {
  const path = await Deno.makeTempFile();
  try {
    const { plan } = await planFor(`
fd = os.open(${JSON.stringify(path)}, os.O_RDWR | os.O_APPEND | os.O_NONBLOCK)
os.write(fd, b"12345")
os.dup2(fd, 9, True)
os.dup2(fd, 7, False)
again = os.open(${JSON.stringify(path)}, os.O_RDONLY)
os.dup2(os.open("/", os.O_PATH | os.O_DIRECTORY), 20)
ready()
`);
    assertEquals(plan.reasons, []);
    assertEquals(plan.neededOptions, []);
    const of = (fd: number) =>
      plan.descriptors.find((descriptor) => descriptor.fd === fd)!;
    assertEquals(plan.descriptors.map(({ fd }) => fd).sort((a, b) => a - b), [
      ...[0, 1, 2, 3, 4, 5, 7, 9, 20],
    ]);
    const { description } = of(3);
    assertEquals(description.kind, "named");
    assertEquals(description.link, path);
    assertEquals(
      description.flags & ~O.LARGEFILE,
      O.RDWR | O.APPEND | O.NONBLOCK,
    );
    assertEquals(description.pos, 5n);
    assertEquals(description.owner, NO_OWNER);
    assertEquals(description.status.size, 5n);
    // dup gives the same description, another open another one.
    assert(of(7).description === description);
    assert(of(9).description === description);
    assert(of(4).description !== description);
    assert(of(0).description === of(2).description);
    assertEquals([3, 7, 9].map((fd) => of(fd).closeOnExec), [
      true,
      true,
      false,
    ]);
    assertEquals(of(20).description.flags & O.PATH, O.PATH);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("descriptions that look alike are still told apart", async () => {
  const { plan } = await planFor(`
for i in range(6):
    os.open("/dev/null", os.O_RDWR)
os.dup2(4, 6)
ready()
`);
  const own = plan.descriptors.filter(({ fd }) => fd >= 3);
  assertEquals(own.length, 6);
  const descriptions = own.map(({ description }) => description);
  assertEquals(new Set(descriptions).size, 5);
  assert(
    own.find(({ fd }) => fd === 4)!.description ===
      own.find(({ fd }) => fd === 6)!.description,
  );
});

Deno.test("the owner of a file and its signal are told", async () => {
  const { plan, pid } = await planFor(`
fd = os.open("/dev/null", os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(fd, 10, 12)
ready()
`);
  const { description } = plan.descriptors.find(({ fd }) => fd === 3)!;
  assertEquals(description.owner, {
    uid: 0,
    euid: 0,
    signum: 12,
    pid_type: 1,
    pid,
  });
});

const REFUSED: readonly [what: string, script: string, why: RegExp][] = [
  [
    "the name of an eventfd",
    `a = libc.eventfd(0, 0)
os.open("/proc/self/fd/%d" % a, 0o10000000)
os.close(a)`,
    /^it only names a kernel object/,
  ],
  [
    "a pidfd of a process outside",
    "os.pidfd_open(1)",
    /^it is a pidfd of process \d+, which is not part of what is dumped$/,
  ],
  [
    "a pidfd of a thread of the outside",
    "libc.syscall(434, 1, os.O_EXCL)",
    /^it is a pidfd of process \d+, which is not part of what is dumped$/,
  ],
  [
    "a fanotify group that decides",
    `os.close(os.open(path, os.O_CREAT)); a = libc.fanotify_init(4, 0)
libc.fanotify_mark(a, 1, ctypes.c_uint64(0x10000), -100, path.encode())`,
    /^it decides on what others may open or read/,
  ],
  [
    "a namespace that it is not in",
    `c = os.open("/proc/self/ns/uts", os.O_RDONLY); libc.unshare(0x04000000)
b = os.open("/proc/self/ns/uts", os.O_RDONLY); libc.setns(c, 0); os.close(c)`,
    /^it is a namespace that the program is not in \(it is in uts:\[\d+\]\)/,
  ],
  [
    "a userfaultfd",
    "libc.syscall(323, 0o2000000)",
    /^a userfaultfd is not supported: /,
  ],
  [
    "secret memory",
    "libc.syscall(447, 0)",
    /^secret memory \(memfd_secret\(2\)\) is not supported: the kernel hides/,
  ],
  [
    "the name of a socket",
    `a = socket.socket(socket.AF_UNIX); os.open("/proc/self/fd/%d" % a.fileno(), 0o10000000)
a.close()`,
    /^it only names a kernel object/,
  ],
  [
    "a pipe that another process holds, too",
    `a = os.pipe()
if os.fork() == 0:
    libc.prctl(1, 9)
    os.close(report)
    while True:
        signal.pause()`,
    /^task \d+ \(python3\) outside of the program has an end of it, too, as descriptor \d+$/,
  ],
  [
    "a fifo that another process has open, too",
    `os.mkfifo(path); os.link(path, path + "2"); a = os.open(path, os.O_RDWR)
if os.fork() == 0:
    libc.prctl(1, 9)
    os.close(report)
    os.open(path + "2", os.O_RDWR)
    os.close(a)
    while True:
        signal.pause()`,
    /^task \d+ \(python3\) outside of the program has it open, too, as descriptor \d+$/,
  ],
  [
    "a file of a thread that has ended with its process",
    `ear, mouth = os.pipe()
pid = os.fork()
if pid == 0:
    libc.prctl(1, 9)
    gate = threading.Lock()
    gate.acquire()
    thread = threading.Thread(target=gate.acquire, daemon=True)
    thread.start()
    os.write(mouth, b"%d" % thread.native_id)
    signal.pause()
a = os.open("/proc/%d/task/%s/comm" % (pid, os.read(ear, 9).decode()), os.O_RDONLY)
os.close(ear)
os.close(mouth)
os.kill(pid, 9)
os.waitpid(pid, 0)`,
    /^it tells of thread \d+ of process \d+, which both have ended/,
  ],
  [
    "a deleted file with a lease",
    `a = os.open(path, os.O_RDWR | os.O_CREAT)
fcntl.fcntl(a, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.unlink(path)`,
    /^it holds a lease of a deleted file/,
  ],
];

for (const [what, script, why] of REFUSED) {
  Deno.test(`refused: ${what}`, async () => {
    const directory = await Deno.makeTempDir();
    try {
      const { plan } = await planFor(
        `path = ${JSON.stringify(`${directory}/file`)}\n${script}\nready()\n`,
      );
      assert(plan.reasons.length > 0, "it is not refused");
      const [{ object, why: told }] = plan.reasons;
      assert(why.test(told), told);
      assert(/^descriptor \d+ \(.+\) of task \d+$/.test(object), object);
      assertEquals(plan.descriptors.map(({ fd }) => fd), [0, 1, 2]);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}

Deno.test({
  name: "a device with a state of its own is refused, which is named",
  ignore: !exists("/dev/fuse"),
  async fn() {
    const { plan } = await planFor(`os.open("/dev/fuse", os.O_RDWR)\nready()`);
    assertEquals(plan.reasons.map(({ why }) => why), [
      "the device 10:229 is not supported: it is the connection to a file " +
      "system (FUSE)",
    ]);
  },
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

Deno.test("memory devices and renamed files are found by their paths", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const { plan } = await planFor(`
for name in ["null", "zero", "full", "random", "urandom"]:
    os.open("/dev/" + name, os.O_RDONLY)
path = ${JSON.stringify(directory)} + "/a"
os.open(path, os.O_RDWR | os.O_CREAT)
os.rename(path, path + "\\n(deleted) \\u00e9")
ready()
`);
    assertEquals(plan.reasons, []);
    assertEquals(
      plan.descriptors.slice(-1)[0].description.link,
      `${directory}/a\n(deleted) é`,
    );
    assertEquals(plan.descriptors.length, 3 + 5 + 1);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a pipe that leads outside is saved when it is named", async () => {
  await using child = await ChildProgram.start(`
${FORK}
a, b = os.pipe()
fork()
os.close(a)
ready(os.readlink("/proc/self/fd/%d" % b))
`);
  const link = child.answer as string;
  const refused = plan(child.pid);
  assertEquals(refused.neededOptions, [`--external ${link}`]);
  const { remedy } = refused.reasons[0];
  assert(remedy !== undefined && remedy.includes(`--external ${link}`));
  for (const key of [link, link.replace(":", "")]) {
    const { reasons, descriptors } = plan(child.pid, { external: [key] });
    assertEquals(reasons, []);
    assertEquals(descriptors.slice(-1)[0].description.kind, "external pipe");
  }
});

Deno.test("processes of a tree share descriptions by fork, and by what they send", async () => {
  const path = await Deno.makeTempFile();
  try {
    await using child = await ChildProgram.start(`
${FORK}
file = os.open(${JSON.stringify(path)}, os.O_RDWR)
alike = os.open(${JSON.stringify(path)}, os.O_RDWR)
one, other = socket.socketpair(socket.AF_UNIX)
def use():
    os.dup2(alike, 30)
    os.close(alike)
    os.open(${JSON.stringify(path)}, os.O_RDWR)
    late, fds, _, _ = socket.recv_fds(other, 1, 1)
    os.dup2(fds[0], 40)
    os.close(fds[0])
    other.close()
    one.close()
late = os.open("/dev/zero", os.O_RDONLY)
import threading
sent = os.dup(late)
gate = threading.Thread(target=lambda: socket.send_fds(one, [b"x"], [sent]))
gate.start()
answer = fork(use)
gate.join()
one.close()
other.close()
ready([answer, file, alike, late, sent])
`);
    const [second, file, alike, late, sent] = child.answer as number[];
    const [mine, theirs] = planTree([child.pid, second]);
    assertEquals([...mine.reasons, ...theirs.reasons], []);
    const of = ({ descriptors }: DescriptorPlan, fd: number) =>
      descriptors.find((descriptor) => descriptor.fd === fd)!.description;
    assert(of(mine, file) === of(theirs, file));
    assert(of(mine, alike) === of(theirs, 30));
    assert(of(mine, file) !== of(mine, alike));
    assert(of(mine, late) === of(theirs, late));
    assert(of(mine, sent) === of(theirs, 40));
    // What the other opened itself looks the same and is another.
    const own = of(theirs, alike);
    assertEquals(own.link, path);
    assert(own !== of(mine, alike) && own !== of(mine, file));
    assert(of(mine, 0) === of(theirs, 2));
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("pipes, fifos and pidfds within the tree are saved", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await using child = await ChildProgram.start(`
${FORK}
a, b = os.pipe()
c, d = os.pipe()
os.close(d)
os.mkfifo(${JSON.stringify(directory)} + "/fifo")
fifo = os.open(${JSON.stringify(directory)} + "/fifo", os.O_RDWR)
name = os.open(${JSON.stringify(directory)} + "/fifo", os.O_PATH)
second = fork(lambda: os.close(a))
alive = os.pidfd_open(second)
dead = os.fork()
if dead == 0:
    os._exit(0)
gone = os.pidfd_open(dead)
os.waitpid(dead, 0)
os.close(b)
ready([second, a, b, c, fifo, name, alive, gone])
`);
    const [second, a, b, c, fifo, name, alive, gone] = child
      .answer as number[];
    const pids = [child.pid, second];
    const [mine, theirs] = planTree(pids);
    assertEquals([...mine.reasons, ...theirs.reasons], []);
    const of = ({ descriptors }: DescriptorPlan, fd: number) =>
      descriptors.find((descriptor) => descriptor.fd === fd)!.description;
    const told = [a, c, fifo, name, alive, gone].map((fd) => {
      const { kind, target } = of(mine, fd);
      return [kind, target];
    });
    assertEquals(told, [
      ["pipe", undefined],
      ["pipe", undefined],
      ["fifo", undefined],
      ["named", undefined],
      ["pidfd", second],
      ["pidfd", GONE],
    ]);
    assertEquals(of(theirs, b).link, of(mine, a).link);
    assert(of(theirs, b) !== of(mine, a));
    const look = new TreeLook();
    const pipes = pipesAmong(pids.map((pid) => ({
      pid,
      descriptors: lookAtDescriptors(pid, look),
    })));
    assertEquals(
      pipes.map((
        { link, ends },
      ) => [link, ends.map(({ pid, fd }) => [pid, fd])]),
      [
        [of(mine, a).link, [[child.pid, a], [second, b]]],
        [of(mine, c).link, [[child.pid, c]]],
        [`${directory}/fifo`, [[child.pid, fifo]]],
      ],
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a reader of a fifo is told from one that a writer has left", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await using child = await ChildProgram.start(`
def open_fifo(name, flags):
    return os.open(${JSON.stringify(directory)} + "/" + name, flags)
for name in "ab":
    os.mkfifo(${JSON.stringify(directory)} + "/" + name)
alone = open_fifo("a", os.O_RDONLY | os.O_NONBLOCK)
left = open_fifo("b", os.O_RDONLY | os.O_NONBLOCK)
os.close(open_fifo("b", os.O_WRONLY))
again = open_fifo("b", os.O_RDONLY | os.O_NONBLOCK)
ready([alone, left, again])
`);
    const { descriptors } = plan(child.pid);
    const told = (child.answer as number[]).map((fd) =>
      descriptors.find((one) => one.fd === fd)!.description.unconnected
    );
    assertEquals(told, [true, false, true]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a file that is named as external needs no path", async () => {
  const path = await Deno.makeTempFile();
  await using child = await ChildProgram.start(`
a = os.open(${JSON.stringify(path)}, os.O_RDWR)
os.unlink(${JSON.stringify(path)})
info = open("/proc/self/fdinfo/%d" % a).read()
mount = [line.split()[1] for line in info.splitlines() if line.startswith("mnt_id")]
ready([int(mount[0]), os.fstat(a).st_ino])
`);
  const [mount, inode] = child.answer as [number, number];
  const key = `file[${mount.toString(16)}:${inode}]`;
  const last = (external: string[]) =>
    plan(child.pid, { external }).descriptors.at(-1)?.description.kind;
  assertEquals(last([]), "named");
  assertEquals(last([`${key}1`]), "named");
  const { reasons, descriptors } = plan(child.pid, { external: [key] });
  assertEquals(reasons, []);
  assertEquals(descriptors.slice(-1)[0].description.kind, "external");
});

/** A pty whose slave the child has open as descriptor 3, and nobody controls. */
const TERMINAL = `
import pty
master, slave = pty.openpty()
keeper = os.fork()
if keeper == 0:
    os.close(report)
    while True:
        signal.pause()
os.dup2(slave, 200)
os.close(master)
os.close(slave)
os.dup2(200, 3)
os.close(200)
ready([keeper, os.fstat(3).st_rdev, os.fstat(3).st_dev])
`;

Deno.test("a terminal is saved as the outside's, when it is the program's own or named", async () => {
  await using child = await ChildProgram.start(TERMINAL);
  const [keeper, rdev, dev] = child.answer as [number, number, number];
  try {
    const told = (options: Partial<DescriptorOptions>) => {
      const { reasons, neededOptions, descriptors } = plan(child.pid, options);
      return {
        why: reasons.map(({ why }) => why),
        neededOptions,
        kinds: descriptors.slice(3).map(({ description }) => description.kind),
      };
    };
    assertEquals(told({ controllingTerminal: rdev }), {
      why: ["it is a terminal that belongs to the outside"],
      neededOptions: ["--shell-job"],
      kinds: [],
    });
    assertEquals(told({ shellJob: true, controllingTerminal: rdev }), {
      why: [],
      neededOptions: [],
      kinds: ["terminal"],
    });
    assertEquals(told({ controllingTerminal: rdev + 1 }), {
      why: [
        "it is another terminal than the one that controls the program, " +
        "which is not supported yet",
      ],
      neededOptions: [],
      kinds: [],
    });
    const key = `tty[${rdev.toString(16)}:${dev.toString(16)}]`;
    assertEquals(told({ external: [key] }), {
      why: [],
      neededOptions: [],
      kinds: ["terminal"],
    });
  } finally {
    Deno.kill(keeper, "SIGKILL");
  }
});

Deno.test("the key of a terminal has its device and its file system", () => {
  const status = stat("/dev/null");
  assertEquals(terminalKey(status), `tty[103:${status.dev.toString(16)}]`);
});
