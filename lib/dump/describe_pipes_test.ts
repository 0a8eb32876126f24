import { assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import {
  lookAtDescriptors,
  pipesAmong,
  planDescriptors,
  TreeDescriptions,
  TreeLook,
} from "../files/descriptors.ts";
import { FileTable } from "../files/file_table.ts";
import type { Feature } from "../image/features.ts";
import { OutsideHolders } from "../files/outside_holders.ts";
import {
  type DescribedPipes,
  describePipes,
  readPipes,
} from "./describe_pipes.ts";

/** The pipes of a script's process; `external` is made of its answer. */
async function described(
  script: string,
  external: (answer: unknown) => string[] = () => [],
): Promise<{ pipes: DescribedPipes; answer: unknown }> {
  await using child = await ChildProgram.start(script);
  const { pid, answer } = child;
  const descriptors = lookAtDescriptors(pid, new TreeLook());
  const pipes = pipesAmong([{ pid, descriptors }]);
  const options = {
    shellJob: false,
    controllingTerminal: 0,
    external: external(answer),
  };
  const contents = readPipes(pipes, options.external);
  const pids = new Set([pid]);
  const holders = new OutsideHolders(pipes, pids);
  const plan = planDescriptors(
    pid,
    descriptors,
    options,
    new TreeDescriptions(pids, holders),
  );
  assertEquals(plan.reasons, []);
  const descriptions = plan.descriptors.map(({ description }) => description);
  const table = new FileTable();
  for (const [i, description] of descriptions.entries()) {
    table.once(description, () => 100 + i);
  }
  return { pipes: describePipes(descriptions, contents, table), answer };
}

Deno.test("pipes are described once, with what is in them and their size", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const { pipes, answer } = await described(`
a, b = os.pipe()
os.write(b, b"abc")
os.dup2(a, 20)
c, d = os.pipe()
e, f = os.pipe()
fcntl.fcntl(f, 1031, 4096)
path = ${JSON.stringify(directory)} + "/fifo"
os.mkfifo(path)
fifo = os.open(path, os.O_RDWR)
again = os.open(path, os.O_RDWR)
os.write(again, b"de")
ready([os.fstat(fd).st_ino & 0xffffffff for fd in (a, e, fifo)])
`);
    const [first, second, fifo] = answer as number[];
    const bytes = (text: string) => new TextEncoder().encode(text);
    assertEquals(pipes, {
      pipes: [
        { pipe_id: first, bytes: 3, size: 65536, extra: bytes("abc") },
        { pipe_id: second, bytes: 0, size: 4096, extra: bytes("") },
      ],
      fifos: [{ pipe_id: fifo, bytes: 2, size: 65536, extra: bytes("de") }],
      extensions: [],
      features: new Set<Feature>(),
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("readers of a fifo are noted that no writer has opened", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const { pipes, answer } = await described(`
fifos = []
for name in "abc":
    path = ${JSON.stringify(directory)} + "/" + name
    os.mkfifo(path)
    os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fifos.append(os.stat(path).st_ino & 0xffffffff)
os.close(os.open(${JSON.stringify(directory)} + "/b", os.O_WRONLY))
os.open(${JSON.stringify(directory)} + "/c", os.O_WRONLY)
ready(fifos)
`);
    const [alone] = answer as number[];
    assertEquals(pipes.extensions, [
      { pipe_id: alone, packets: [], unconnected: [103] },
    ]);
    assertEquals(pipes.features.size, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("whose a pipe is, and who may open it anew, is noted when it is not root's", async () => {
  const { pipes, answer } = await described(`
plain = os.pipe()
os.setegid(77)
os.seteuid(76)
user = os.pipe()
os.seteuid(0)
open_to_all = os.pipe()
os.fchmod(open_to_all[0], 0o666)
ready([os.fstat(fd).st_ino for fd in (user[0], open_to_all[0])])
`);
  const [user, all] = answer as number[];
  const rest = { packets: [], unconnected: [] };
  assertEquals(pipes.extensions, [
    { pipe_id: user, ...rest, uid: 76, gid: 77, mode: 0o600 },
    { pipe_id: all, ...rest, uid: 0, gid: 77, mode: 0o666 },
  ]);
});

Deno.test("packets are a feature that other tools refuse", async () => {
  const { pipes, answer } = await described(`
a, b = os.pipe2(os.O_DIRECT)
os.write(b, b"abc")
os.write(b, b"d")
ready(os.fstat(a).st_ino)
`);
  assertEquals(pipes.extensions, [
    { pipe_id: answer as number, packets: [3, 1], unconnected: [] },
  ]);
  assertEquals([...pipes.features], ["ckpt:packets"]);
});

Deno.test("of a pipe that leads outside nothing is saved but that it does", async () => {
  const { pipes, answer } = await described(
    `
a, b = os.pipe()
os.write(b, b"abc")
ready(os.fstat(a).st_ino)
`,
    (inode) => [`pipe:[${inode}]`],
  );
  assertEquals(pipes, {
    pipes: [],
    fifos: [],
    extensions: [{
      pipe_id: answer as number,
      packets: [],
      external: true,
      unconnected: [],
    }],
    features: new Set<Feature>(),
  });
});

Deno.test("inodes that end alike have numbers of their own", () => {
  const table = new FileTable();
  const LONG = 2n ** 32n;
  const ids = [LONG + 7n, 7n, 2n * LONG + 7n, LONG - 1n, 2n * LONG - 1n]
    .map((inode) => table.pipeId(`${inode}`, inode));
  assertEquals(ids, [7, 8, 9, 0xffff_ffff, 0]);
  assertEquals(table.pipeId("7", 7n), 8);
});
