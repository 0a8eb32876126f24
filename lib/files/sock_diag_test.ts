import { assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { splitAnswer, unixSocket, unixSockets } from "./sock_diag.ts";

Deno.test("a Unix socket is told with its peer, and both are among all", async () => {
  await using child = await ChildProgram.start(`
a, b = socket.socketpair()
a.shutdown(socket.SHUT_WR)
ready([os.fstat(one.fileno()).st_ino for one in (a, b)])
`);
  const [a, b] = child.answer as number[];
  const first = unixSocket(a)!;
  assertEquals([first.ino, first.peer, first.type, first.state], [a, b, 1, 1]);
  assertEquals([first.shutdown, unixSocket(b)!.shutdown], [2, 1]);
  assertEquals(first.name.length, 0);
  const all = unixSockets().map(({ ino }) => ino);
  assertEquals([all.includes(a), all.includes(b)], [true, true]);
});

Deno.test("one that listens is told with its name, backlog, and who waits", async () => {
  await using child = await ChildProgram.start(`
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0ckpt-diag-%d" % os.getpid())
listener.listen(7)
fresh = socket.socket(socket.AF_UNIX)
client = socket.socket(socket.AF_UNIX)
client.connect(listener.getsockname())
ready([os.fstat(one.fileno()).st_ino for one in (listener, fresh, client)])
`);
  const [listener, fresh, client] = child.answer as number[];
  const seen = unixSocket(listener)!;
  assertEquals(
    new TextDecoder().decode(seen.name),
    `\0ckpt-diag-${child.pid}`,
  );
  assertEquals([seen.state, seen.backlog, seen.waiting], [10, 7, 1]);
  assertEquals(seen.pending, [client]);
  assertEquals(unixSocket(client)!.peer, 0);
  assertEquals(unixSocket(fresh)!.peer, undefined);
});

Deno.test("a socket that does not exist is not found", () => {
  assertEquals(unixSocket(0x7fffffff), undefined);
});

Deno.test("the end of a dump is told", () => {
  const found: Uint8Array<ArrayBuffer>[] = [];
  const done = new Uint8Array(20);
  new DataView(done.buffer).setUint32(0, 20, true);
  new DataView(done.buffer).setUint16(4, 3, true);
  assertEquals(splitAnswer(done, found), true);
  assertEquals(splitAnswer(new Uint8Array(0), found), false);
  assertEquals(found, []);
});
