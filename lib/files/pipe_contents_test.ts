import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { O } from "../ffi/syscall.ts";
import { type PipeContent, type PipeEnd, PipeReader } from "./pipe_contents.ts";

/** The ends that a script tells, as [descriptor, flags]. */
function endsOf({ pid, answer }: ChildProgram): PipeEnd[] {
  return (answer as [number, number][]).map(([fd, flags]) => ({
    pid,
    fd,
    flags,
  }));
}

function readOne(reader: PipeReader, ends: readonly PipeEnd[]): PipeContent {
  return reader.readAll([{ ends, link: "the pipe" }])[0];
}

/** The script ends with `ready(both)`, or other ends. */
const PIPE = `
a, b = os.pipe2(os.O_NONBLOCK)
both = [(a, os.O_RDONLY), (b, os.O_WRONLY)]
def mode(flags):
    fcntl.fcntl(b, fcntl.F_SETFL, flags | os.O_NONBLOCK)
`;

const CASES: readonly {
  what: string;
  script: string;
  size?: number;
  bytes: Uint8Array;
  packets?: number[];
}[] = [
  { what: "nothing", script: "", bytes: Uint8Array.of() },
  {
    what: "bytes, some of which were read",
    script: `os.write(b, b"hello world"); os.read(a, 6)`,
    bytes: new TextEncoder().encode("world"),
  },
  {
    what: "all it can take",
    script: `os.write(b, bytes(65536))`,
    bytes: new Uint8Array(65536),
  },
  {
    what: "all it can take, in small pieces of a file",
    script: `
zero = os.open("/dev/zero", os.O_RDONLY)
fd = os.open("/proc/self/exe", os.O_RDONLY)
for i in range(16):
    os.splice(fd, b, 2, 0)
`,
    bytes: new Uint8Array(32),
  },
  {
    what: "a MiB, the most that an unprivileged program can have",
    script:
      `fcntl.fcntl(a, 1031, 1 << 20); os.write(b, bytes([7]) * (1 << 20))`,
    size: 1 << 20,
    bytes: new Uint8Array(1 << 20).fill(7),
  },
  {
    what: "packets of any length",
    script: `
fcntl.fcntl(a, 1031, 8192 * 2)
mode(os.O_DIRECT)
for length in [1, 4096, 2, 1]:
    os.write(b, bytes([length & 255]) * length)
`,
    size: 16384,
    bytes: Uint8Array.of(1, ...new Uint8Array(4096), 2, 2, 1),
    packets: [1, 4096, 2, 1],
  },
  {
    what: "as many packets as it can take, the last one of a byte",
    script: `
mode(os.O_DIRECT)
for i in range(16):
    os.write(b, b"x")
`,
    bytes: new Uint8Array(16).fill(120),
    packets: Array(16).fill(1),
  },
  {
    what: "one packet that was longer than a page",
    script: `mode(os.O_DIRECT); os.write(b, bytes(5000))`,
    bytes: new Uint8Array(5000),
    packets: [4096, 904],
  },
];

for (const { what, script, size = 65536, bytes, packets } of CASES) {
  Deno.test(`reads what is in a pipe and leaves it: ${what}`, async () => {
    await using child = await ChildProgram.start(
      `${PIPE}\n${script}\nready(both)`,
    );
    using reader = new PipeReader();
    for (const ends of [endsOf(child), endsOf(child).reverse()]) {
      const read = readOne(reader, ends);
      assertEquals([read.size, read.bytes.length], [size, bytes.length]);
      assertEquals(read.packets, packets);
      assert(
        what.includes("file") ||
          read.bytes.every((byte, i) => byte === bytes[i]),
      );
    }
  });
}

Deno.test("one reader reads many pipes, small after large", async () => {
  await using child = await ChildProgram.start(`
pipes = [os.pipe() for i in range(20)]
for i, (a, b) in enumerate(pipes):
    fcntl.fcntl(b, 1031, 65536 << (i % 3))
    fcntl.fcntl(b, fcntl.F_SETFL, os.O_DIRECT if i % 2 else 0)
    for k in range(i):
        os.write(b, bytes([i, k]))
ready(pipes)
`);
  using reader = new PipeReader();
  const contents = reader.readAll(
    (child.answer as [number, number][]).map(([a, b]) => ({
      ends: [
        { pid: child.pid, fd: b, flags: O.WRONLY },
        { pid: child.pid, fd: a, flags: O.RDONLY },
      ],
      link: "a pipe",
    })),
  );
  contents.forEach(({ size, bytes, packets }, i) => {
    assertEquals(size, 65536 << (i % 3));
    assertEquals(
      [...bytes],
      Array.from({ length: i }, (_, k) => [i, k]).flat(),
    );
    assertEquals(packets, i % 2 === 0 ? undefined : Array(i).fill(2));
  });
});

Deno.test("what nobody can read any more is read, and stays", async () => {
  await using child = await ChildProgram.start(`${PIPE}
os.write(b, b"left")
os.close(a)
ready([(b, os.O_WRONLY)])
`);
  using reader = new PipeReader();
  for (let i = 0; i < 2; i++) {
    const { bytes } = readOne(reader, endsOf(child));
    assertEquals(new TextDecoder().decode(bytes), "left");
  }
});

const REFUSED: readonly [what: string, script: string, why: RegExp][] = [
  [
    "bytes before packets",
    `os.write(b, bytes(4096)); mode(os.O_DIRECT); os.write(b, b"345")
ready(both)`,
    /^it holds packets .* beside plain bytes/,
  ],
  [
    "bytes after packets",
    `mode(os.O_DIRECT); os.write(b, b"345"); mode(0); os.write(b, b"1"); ready(both)`,
    /^it holds packets .* beside plain bytes/,
  ],
  [
    "signals, where closing a descriptor of ours would send one",
    `os.write(b, b"1"); os.close(a); mode(os.O_ASYNC)
ready([(b, os.O_WRONLY | os.O_ASYNC)])`,
    /^it holds bytes that nobody can read, and gives signals/,
  ],
];

for (const [what, script, why] of REFUSED) {
  Deno.test(`refused: ${what}`, async () => {
    await using child = await ChildProgram.start(`${PIPE}\n${script}`);
    using reader = new PipeReader();
    const error = assertThrows(
      () => readOne(reader, endsOf(child)),
      CkptError,
    );
    assertEquals(error.exit, EXIT.refused);
    assert(why.test(error.reasons[0].why), error.reasons[0].why);
  });
}
