import { assert, assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { readLink, stat } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { readStat } from "../proc/read.ts";
import { OutsideHolders, type PipeIdentity } from "./outside_holders.ts";

function identity(pid: number, fd: number): PipeIdentity {
  const path = `/proc/${pid}/fd/${fd}`;
  return { link: decodeText(readLink(path)), status: stat(path) };
}

/** Two processes; the second closes its pipe end when it is told to. */
const SCRIPT = `
a, b = os.pipe()
c, d = os.pipe()
gate, opened = os.pipe()
second = os.fork()
if second == 0:
    libc.prctl(1, 9)
    os.close(report)
    os.close(gate)
    os.close(c)
    os.close(d)
    def close(*_):
        os.close(a)
        os.close(b)
    signal.signal(signal.SIGUSR1, close)
    os.close(opened)
    while True:
        signal.pause()
os.close(opened)
os.read(gate, 1)
ready([second, a, c])
`;

Deno.test("who holds a pipe outside of the tree is told by pid, name and descriptor", async () => {
  await using child = await ChildProgram.start(SCRIPT);
  const [second, a, c] = child.answer as number[];
  const shared = identity(child.pid, a);
  const own = identity(child.pid, c);
  const seen = new OutsideHolders([shared, own], new Set([child.pid]));
  assertEquals(seen.holder(shared), { pid: second, name: "python3", fd: a });
  assertEquals(seen.holder(own), undefined);
  const both = new Set([child.pid, second]);
  assertEquals(
    new OutsideHolders([shared, own], both).holder(shared),
    undefined,
  );
});

Deno.test("a second look finds who let go, and who is new", async () => {
  await using child = await ChildProgram.start(SCRIPT);
  const [second, a] = child.answer as number[];
  const shared = identity(child.pid, a);
  const tree = new Set([child.pid]);
  const before = new OutsideHolders([shared], tree);
  assert(before.holder(shared) !== undefined);
  Deno.kill(second, "SIGUSR1");
  while (
    new OutsideHolders([shared], tree, before).holder(shared) !== undefined
  ) await new Promise((done) => setTimeout(done, 1));

  // The child of another process that came since.
  await using late = await ChildProgram.start(SCRIPT);
  const [, b] = late.answer as number[];
  const other = identity(late.pid, b);
  const after = new OutsideHolders([other], new Set([late.pid]), before);
  assertEquals(after.holder(other)?.pid, (late.answer as number[])[0]);
});

Deno.test("a fifo is known by its inode, whatever name it was opened by", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const script = (name: string) => `
path = ${JSON.stringify(directory)} + "/fifo"
if not os.path.exists(path):
    os.mkfifo(path)
    os.link(path, path + " again")
ready(os.open(${JSON.stringify(directory)} + "/${name}", os.O_RDWR))
`;
    await using first = await ChildProgram.start(script("fifo"));
    await using second = await ChildProgram.start(script("fifo again"));
    const fd = first.answer as number;
    const fifo = identity(first.pid, fd);
    const seen = new OutsideHolders([fifo], new Set([first.pid]));
    assertEquals(seen.holder(fifo), {
      pid: second.pid,
      name: "python3",
      fd: second.answer as number,
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a holder is found whose first thread has ended", async () => {
  await using child = await ChildProgram.start(`
a, b = os.pipe()
pid = os.fork()
if pid == 0:
    libc.prctl(1, 9)
    os.close(report)
    threading.Thread(target=signal.pause, daemon=True).start()
    libc.syscall(60, 0)
ready([pid, a])
`);
  const [second, a] = child.answer as number[];
  while (readStat(second).state !== "Z") {
    await new Promise((done) => setTimeout(done, 1));
  }
  const pipe = identity(child.pid, a);
  const seen = new OutsideHolders([pipe], new Set([child.pid]));
  assertEquals(seen.holder(pipe), { pid: second, name: "python3", fd: a });
});
