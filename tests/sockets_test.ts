/** Sockets: Unix ones whose ends are all in the tree, TCP that listens, UDP. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { dump, restore, Scope } from "./harness.ts";
import { survives } from "./state.ts";

survives("sk_unix_pairs", "pairs of Unix sockets");
survives("sk_unix_bound", "Unix sockets with names");
survives("sk_rights", "descriptors in flight");
survives(
  "sk_ip",
  "datagrams, multicast groups, raw sockets and ended connections",
);
survives("sk_link", "netlink and packet sockets");
survives("sk_inet", "TCP and UDP sockets without a connection");
survives("sk_tcp", "TCP connections", { options: ["--tcp-established"] });

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
