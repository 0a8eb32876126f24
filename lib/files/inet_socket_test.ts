import { assertEquals, assertMatch } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { openPidfd } from "../ffi/pidfd.ts";
import { close, stat } from "../ffi/syscall.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import {
  describeInetSocket,
  inetSocketProblem,
  remoteInTable,
  type SeenInetSocket,
} from "./inet_socket.ts";
import { makeInetSocket } from "./make_inet_socket.ts";
import { inetProblems } from "./try_inet_sockets.ts";
import { NO_OWNER } from "./file_table.ts";
import { noExtension } from "./socket_images.ts";
import { UnixSocketsAtOnce } from "./sock_diag.ts";
import { lookAtSockets } from "./sockets.ts";
import { TableProgram } from "./table_program.ts";

const LOOPBACK = 0x0100007f;

Deno.test("where a raw socket is connected to is found by its inode", () => {
  const text = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops",
    "    1: 00000000:0001 0100007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 3271625 2 0000000000000000 0",
    "",
  ].join("\n");
  const found = { port: 0, words: [LOOPBACK], scope: 0 };
  assertEquals(remoteInTable(text, 3271625), found);
  assertEquals(remoteInTable(text, 5), undefined);
  const six = "  1: 00000000000000000000000001000000:0063 " +
    "000080FE000000000000000002000000:0007 01 0:0 0:0 0     0        0 77 2";
  assertEquals(remoteInTable(`head\n${six}`, 77), {
    port: 7,
    words: [0x80fe, 0, 0, 0x02000000],
    scope: 0,
  });
});

function look(pid: number, fd: number): SeenInetSocket {
  const pidfd = openPidfd(pid);
  try {
    const { ino } = stat(`/proc/${pid}/fd/${fd}`);
    const seen = lookAtSockets(pidfd, [{ fd, ino }], new UnixSocketsAtOnce());
    return seen.get(fd) as SeenInetSocket;
  } finally {
    close(pidfd);
  }
}

Deno.test("connections are refused with where they lead, and what waits, too", async () => {
  await using child = await ChildProgram.start(`
import socket as s, struct
listener = s.create_server(("127.0.0.1", 0))
client = s.create_connection(listener.getsockname())
server, _ = listener.accept()
waits = s.create_server(("127.0.0.1", 0))
second = s.create_connection(waits.getsockname())
ended = s.create_connection(listener.getsockname())
other, _ = listener.accept()
other.setsockopt(s.SOL_SOCKET, s.SO_LINGER, struct.pack("2i", 1, 0))
other.close()
try:
    ended.recv(1)
except OSError:
    pass
udp = s.socket(s.AF_INET, s.SOCK_DGRAM)
ready([one.fileno() for one in (listener, client, waits, ended, udp)] + [listener.getsockname()[1]])
`);
  const numbers = child.answer as number[];
  const port = numbers.pop();
  const [listener, client, waits, ended, udp] = numbers.map((fd) =>
    inetSocketProblem(look(child.pid, fd), {})
  );
  assertEquals([listener, udp], [undefined, undefined]);
  assertMatch(
    client!.why,
    new RegExp(`^it is a TCP connection to 127.0.0.1:${port}$`),
  );
  assertEquals(client!.option, "--tcp-established");
  assertEquals(waits!.option, "--skip-in-flight");
  assertMatch(waits!.why, /^a TCP connection waits to be accepted/);
  assertEquals(ended, undefined);
});

Deno.test("sockets are made as they were seen", async () => {
  await using child = await ChildProgram.start(`
import socket as s
kept = []
def make(family, kind, *options):
    one = s.socket(family, kind)
    for option in options:
        one.setsockopt(*option)
    kept.append(one)
    return one
make(s.AF_INET, s.SOCK_STREAM, (1, 2, 1), (6, 1, 1), (0, 2, 9)).bind(("127.0.0.1", 0))
kept[0].listen(3)
make(s.AF_INET6, s.SOCK_STREAM, (41, 26, 1), (1, 15, 1)).bind(("::1", 0))
make(s.AF_INET, s.SOCK_DGRAM, (1, 6, 1), (0, 10, 2), (1, 25, b"lo\\0")).bind(("127.0.0.1", 0))
make(s.AF_INET6, s.SOCK_DGRAM, (41, 67, 5)).connect(("::1", 9))
kept[3].shutdown(s.SHUT_RD)
make(s.AF_INET, s.SOCK_STREAM, (6, 13, b"reno"), (1, 8, 30000))
ready([one.fileno() for one in kept])
`);
  const seen = (child.answer as number[]).map((fd) => look(child.pid, fd));
  const images = seen.map((socket, i) => ({
    entry: describeInetSocket(socket, i, O.RDWR | O.NONBLOCK, NO_OWNER),
    extension: { ...noExtension(i), options: [...socket.options.further] },
  }));
  // While the child has the ports, they are told as taken.
  const taken = inetProblems(images).map(({ object, why }) =>
    `${object}: ${why}`
  );
  // With SO_REUSEPORT a port is shared with anybody of the same user.
  assertEquals(taken.length, 3, taken.join("\n"));
  assertMatch(
    taken[0],
    new RegExp(`^TCP 127.0.0.1:\\d+: .* by task ${child.pid} \\(python3\\)$`),
  );
  await child[Symbol.asyncDispose]();
  assertEquals(inetProblems(images), []);
  using task = new AgentTask();
  const program = new Program();
  program.call("close", [0], "closing the lifeline");
  const table = new TableProgram(program, { base: 300, free: 300 });
  images.forEach((image, i) => {
    const wanted = { fd: 20 + i, flags: O.RDWR | O.NONBLOCK, cloexec: 0 };
    makeInetSocket(table, wanted, image, new Map());
  });
  task.run(program);
  images.forEach((image, i) => {
    const again = look(task.pid, 20 + i);
    assertEquals(
      {
        ...describeInetSocket(again, i, O.RDWR | O.NONBLOCK, NO_OWNER),
        ino: 0,
      },
      { ...image.entry, ino: 0 },
    );
    assertEquals(again.options.further, image.extension.options);
  });
});
