import { assertEquals, assertThrows } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { openPidfd } from "../ffi/pidfd.ts";
import { close, syscall } from "../ffi/syscall.ts";
import { SOCK } from "./socket_kind.ts";
import { getInt, SO, SOL_SOCKET } from "./sockopt.ts";
import { readUnixQueue, UnreadableQueue } from "./unix_queue.ts";

const SETUP = `
def sockets(kind, sends):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    for sent in sends:
        a.send(sent)
    kept.append(a)
    return b.detach()
kept = []
`;

function withDescriptor<T>(
  pid: number,
  fd: number,
  use: (fd: number) => T,
): T {
  const pidfd = openPidfd(pid);
  const own = Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)));
  close(pidfd);
  try {
    return use(own);
  } finally {
    close(own);
  }
}

function read(pid: number, fd: number, type: number, ended = false): string[] {
  return withDescriptor(
    pid,
    fd,
    (own) =>
      readUnixQueue(own, type, ended).map(({ bytes }) =>
        new TextDecoder().decode(bytes)
      ),
  );
}

Deno.test("queues are read again and again, in the packets they were sent in", async () => {
  await using child = await ChildProgram.start(`${SETUP}
ready([
    sockets(socket.SOCK_STREAM, [b"one ", b"two"]),
    sockets(socket.SOCK_STREAM, []),
    sockets(socket.SOCK_DGRAM, [b"first", b"", b"third"]),
    sockets(socket.SOCK_SEQPACKET, [b"a", b"bc"]),
    sockets(socket.SOCK_DGRAM, []),
])
`);
  const [stream, empty, dgram, packets, none] = child.answer as number[];
  const { pid } = child;
  assertEquals(read(pid, dgram, SOCK.DGRAM), ["first", "", "third"]);
  for (let i = 0; i < 2; i++) {
    assertEquals(read(pid, stream, SOCK.STREAM), ["one two"]);
    assertEquals(read(pid, empty, SOCK.STREAM), []);
    assertEquals(read(pid, packets, SOCK.SEQPACKET), ["a", "bc"]);
    assertEquals(read(pid, none, SOCK.DGRAM), []);
  }
  withDescriptor(pid, dgram, (own) => {
    assertEquals(getInt(own, SOL_SOCKET, SO.PEEK_OFF), -1);
  });
});

Deno.test("a packet that is longer than the room for one is read whole", async () => {
  await using child = await ChildProgram.start(`
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)
a.send(b"x" * 10)
a.send(b"y" * 700000)
a.send(b"z")
ready(b.fileno())
`);
  const packets = read(child.pid, child.answer as number, SOCK.DGRAM);
  assertEquals(packets.map(({ length }) => length), [10, 700000, 1]);
  assertEquals(packets[2], "z");
});

Deno.test("packets of a peer that is gone end with the last one", async () => {
  await using child = await ChildProgram.start(`
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
a.send(b"last")
a.close()
c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
c.close()
ready([b.fileno(), d.fileno()])
`);
  const [some, none] = child.answer as number[];
  assertEquals(read(child.pid, some, SOCK.SEQPACKET, true), ["last"]);
  assertEquals(read(child.pid, none, SOCK.SEQPACKET, true), []);
});

Deno.test("who sent is told where the receiver asks, and only there", async () => {
  await using child = await ChildProgram.start(`
a, b = socket.socketpair()
c, d = socket.socketpair()
b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
for uid in (0, 5, 0):
    a.sendmsg([b"%d" % uid], [(socket.SOL_SOCKET, 2, struct.pack("3i", os.getpid(), uid, uid))])
    c.send(b"%d" % uid)
ready([b.fileno(), d.fileno()])
`.replace("\na, b", "\nimport struct\na, b"));
  const [asks, asksNot] = child.answer as number[];
  const senders = (fd: number) =>
    withDescriptor(
      child.pid,
      fd,
      (own) =>
        readUnixQueue(own, SOCK.STREAM, false).map(({ sender }) => sender),
    );
  const { pid } = child;
  assertEquals(
    senders(asks),
    [0, 5, 0].map((uid) => ({ pid, uid, gid: uid })),
  );
  assertEquals(senders(asksNot), [undefined]);
});

Deno.test("an urgent byte is refused", async () => {
  await using child = await ChildProgram.start(`
a, b = socket.socketpair()
a.send(b"x")
a.send(b"!", socket.MSG_OOB)
ready(b.fileno())
`);
  assertThrows(
    () => read(child.pid, child.answer as number, SOCK.STREAM),
    UnreadableQueue,
    "urgent",
  );
});
