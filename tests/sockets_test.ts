/** Sockets: Unix ones whose ends are all in the tree, TCP that listens, UDP. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { CKPT, dump, restore, Scope, until } from "./harness.ts";
import { kill } from "./libc.ts";
import { survives } from "./state.ts";

survives("sk_unix_pairs", "pairs of Unix sockets");
survives("sk_unix_bound", "Unix sockets with names");
survives("sk_unix_gone", "Unix sockets whose names are gone or taken");
survives("sk_rights", "descriptors in flight");
survives(
  "sk_ip",
  "datagrams, multicast groups, raw sockets and ended connections",
);
survives("sk_link", "netlink and packet sockets");
survives("packet_rings", "packet sockets with rings in memory");
survives("sk_inet", "TCP and UDP sockets without a connection");
survives("sk_options", "all options of sockets", {
  options: ["--tcp-established"],
});
survives("sk_ports", "sockets that share a port");
survives("sk_unaccepted", "TCP connections that wait to be accepted", {
  options: ["--tcp-established"],
});
survives("sk_waiting", "what was sent before a connection is accepted");
survives("sk_corked", "datagrams that are not complete yet", {
  options: ["--tcp-established"],
});
survives("sk_tcp", "TCP connections", { options: ["--tcp-established"] });

Deno.test("a connection that waits to be accepted gets its port also where another one has it by now", async () => {
  await using scope = new Scope();
  const program = await scope.start("sk_unaccepted");
  const port = Deno.readTextFileSync(`${program.work}/port`).trim();
  const images = scope.path("images");
  await dump(scope, program, images, "--tcp-established");
  const work = scope.path("other");
  // IP_LOCAL_PORT_RANGE: the kernel may choose but one.
  await scope.startCommand(work, "/usr/bin/python3", [
    "-c",
    `import socket, struct, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.socket()
client.setsockopt(socket.IPPROTO_IP, 51, struct.pack("HH", ${port}, ${port}))
client.connect(listener.getsockname())
open("ready", "w").close()
time.sleep(600)`,
  ]);
  await until("it is connected", () => isThere(`${work}/ready`) || undefined);
  await restore(scope, program, images, "--tcp-established");
  assertEquals(await program.verify(), "ok");
});

for (const parent of ["/dev/shm", "/var/tmp"]) {
  Deno.test(`nothing is touched where Unix sockets were whose names are gone or taken, in ${parent}`, async () => {
    await using scope = new Scope();
    const place = Deno.makeTempDirSync({ dir: parent, prefix: "ckpt-gone-" });
    try {
      const program = await scope.start("sk_unix_gone", place);
      const look = () =>
        ["", "/file", "/directory"].map((name) => {
          const { ino, ctime, mode } = Deno.statSync(`${place}/gone${name}`);
          return { ino, ctime, mode };
        });
      const before = look();
      await dump(scope, program, scope.path("images"));
      await restore(scope, program, scope.path("images"));
      assertEquals(look(), before);
      assertEquals(await program.verify(), "ok");
    } finally {
      Deno.removeSync(place, { recursive: true });
    }
  });
}

Deno.test("a Unix socket whose peer is not in the tree is refused, and the peer's process named", async () => {
  await using scope = new Scope();
  const path = `${scope.directory}/outside`;
  using listener = Deno.listen({ transport: "unix", path });
  const program = await scope.start("sk_names", path);
  using _peer = await listener.accept();
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    new RegExp(`its peer is a socket of task ${Deno.pid} \\(`),
  );
  assertEquals(await program.verify(), "ok");
});

Deno.test("names and ports that are taken are told before anything is restored, with who has them", async () => {
  await using scope = new Scope();
  const program = await scope.start("sk_names");
  const port = Deno.readTextFileSync(`${program.work}/port`).trim();
  const images = scope.path("images");
  await dump(scope, program, images);
  const name = `ckpt-names-${program.pid}`;
  const path = `${program.work}/socket`;
  Deno.removeSync(path);
  const taken = scope.path("taken");
  const other = await scope.startCommand(taken, "/usr/bin/python3", [
    "-c",
    `
import os, socket, sys, time
path, name, port, ready = sys.argv[1:]
kept = [socket.socket(socket.AF_UNIX) for _ in range(2)]
kept[0].bind(path)
kept[1].bind("\\0" + name)
kept.append(socket.create_server(("127.0.0.1", int(port))))
open(ready, "w").write("%d" % os.getpid())
time.sleep(60)
`,
    path,
    name,
    port,
    `${taken}/ready`,
  ]);
  await other.ready();
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  const holder = `task ${other.pid} \\(python3\\)`;
  for (
    const expected of [
      `${path}: this path is in use by a socket of ${holder}`,
      `@${name}: this name is taken by a socket of ${holder}`,
      `TCP 127.0.0.1:${port}: the port is in use by ${holder}`,
    ]
  ) {
    assertMatch(answer.stderr, new RegExp(expected));
  }
  await other.kill();
  // The path of a socket that nobody has any more is no hindrance.
  assertEquals(Deno.statSync(path).isSocket, true);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a file that is no socket is not removed for one", async () => {
  await using scope = new Scope();
  const program = await scope.start("sk_names");
  const images = scope.path("images");
  await dump(scope, program, images);
  const path = `${program.work}/socket`;
  Deno.removeSync(path);
  Deno.writeTextFileSync(path, "precious");
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(answer.stderr, /a file that is no socket has this path now/);
  assertEquals(Deno.readTextFileSync(path), "precious");
});

/** Sends to a socket of the outside, and holds an end of a pair whose other end another process has. */
const OUTWARDS = `
import os, socket, sys, time
work, outside, end = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect(outside)
pair = socket.socket(fileno=end)
open(work + "/inode", "w").write("%d" % os.fstat(end).st_ino)
os.rename(work + "/inode", work + "/ready")
while not os.path.exists(work + "/go"):
    time.sleep(0.01)
log.send(b"after")
open(work + "/heard.new", "wb").write(pair.recv(16))
os.rename(work + "/heard.new", work + "/heard")
time.sleep(60)
`;

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Waits until a file has a text. */
function textOf(what: string, path: string): Promise<string> {
  return until(
    what,
    () => isThere(path) && Deno.readTextFileSync(path) || undefined,
  );
}

/** Starts OUTWARDS, and the outside that its sockets lead to. */
async function startOutwards(scope: Scope) {
  const outside = `${scope.directory}/outside`;
  const work = scope.path("work");
  const listening = scope.path("listening");
  // The outside: it hears what is sent, and has the other end of the pair.
  const other = await scope.startCommand(listening, "/usr/bin/python3", [
    "-c",
    `
import os, socket, subprocess, sys
outside, work, listening, program = sys.argv[1:]
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(outside)
ours, theirs = socket.socketpair()
os.set_inheritable(theirs.fileno(), True)
child = subprocess.Popen(
    ["/usr/bin/python3", "-c", program, work, outside, str(theirs.fileno())],
    close_fds=False, stdin=subprocess.DEVNULL, start_new_session=True,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    preexec_fn=lambda: (log.close(), ours.close()))
theirs.close()
open(listening + "/child", "w").write("%d" % child.pid)
open(listening + "/ready", "w").write("%d" % os.getpid())
child.wait()
heard = log.recv(16)
open(listening + "/said", "wb").write(heard)
import time
time.sleep(60)
`,
    ...[outside, work, listening, OUTWARDS],
  ]);
  await other.ready();
  const pid = Number(Deno.readTextFileSync(`${listening}/child`));
  const inode = await textOf("the program is ready", `${work}/ready`);
  return { work, listening, other, pid, inode };
}

Deno.test("a socket is connected to one of the outside again by its name, and another loses its peer, where that is asked for", async () => {
  await using scope = new Scope();
  const { work, listening, other, pid, inode } = await startOutwards(scope);
  const images = scope.path("images");
  const options = ["--ext-unix-sk", "--external", `unix[${inode}]`];
  const refused = await scope.ckpt("dump", "-t", `${pid}`, "-D", images);
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  const holder = `its peer is a socket of task ${other.pid} \\(python3\\)`;
  assertMatch(refused.stderr, new RegExp(`${holder}[^]*--ext-unix-sk`));
  assertMatch(refused.stderr, new RegExp(`${holder}[^]*unix\\[${inode}\\]`));
  const dumped = await scope.ckpt(
    ...["dump", "-t", `${pid}`, "-D", images, ...options],
  );
  assertEquals(dumped.code, 0, dumped.stderr);
  const restored = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(restored.code, 0, restored.stderr);
  try {
    Deno.writeTextFileSync(`${work}/go`, "");
    assertEquals(await textOf("it is heard", `${listening}/said`), "after");
    const heard = `${work}/heard`;
    await until("the end", () => isThere(heard) || undefined);
    assertEquals(Deno.readTextFileSync(heard), "");
  } finally {
    kill(pid, 9);
  }
});

Deno.test("a socket whose peer is outside is given anew by --inherit-fd", async () => {
  await using scope = new Scope();
  const { work, pid, inode } = await startOutwards(scope);
  const images = scope.path("images");
  const options = ["--ext-unix-sk", "--external", `unix[${inode}]`];
  const dumped = await scope.ckpt(
    ...["dump", "-t", `${pid}`, "-D", images, ...options],
  );
  assertEquals(dumped.code, 0, dumped.stderr);
  const given = await scope.bash(
    `exec python3 -c '
import os, socket, subprocess, sys
ckpt, images, inode = sys.argv[1:]
ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 77)
ours.send(b"given")
sys.exit(subprocess.call(
    [ckpt, "restore", "-d", "-D", images,
     "--inherit-fd", "fd[77]:socket:[%s]" % inode], pass_fds=[77]))
' "$0" "$1" "$2"`,
    CKPT,
    images,
    inode,
  );
  assertEquals(given.code, 0, given.stderr);
  try {
    Deno.writeTextFileSync(`${work}/go`, "");
    assertEquals(await textOf("it is heard", `${work}/heard`), "given");
  } finally {
    kill(pid, 9);
  }
});
