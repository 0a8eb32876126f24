/**
 * Servers from packages in the middle of work, with their clients in the same tree: dumped while they run on, dumped
 * and restored twice; no client has seen an error or has lost anything in the end.
 */
import { assertEquals } from "@std/assert";
import {
  assertSuccess,
  dump,
  freePort,
  type Program,
  restore,
  Scope,
} from "./harness.ts";

const SCRIPT = new URL("programs/servers.sh", import.meta.url).pathname;

/** Test programs see them by these names; see servers.sh. */
const SERVERS = {
  redis: "redis-server and redis-cli --pipe",
  memcached: "memcached and a client with pipelines",
  nginx: "nginx and wrk",
  postgres: "PostgreSQL with open transactions",
  node: "a node server and clients with kept connections",
  java: "a server of HTTP in Java and its clients",
};

async function start(scope: Scope, server: string): Promise<Program> {
  const work = scope.path("work");
  // Some servers are of another user.
  Deno.chmodSync(work, 0o755);
  const program = await scope.startCommand(work, "/bin/bash", [
    SCRIPT,
    server,
    work,
    `${freePort()}`,
  ]);
  await program.ready();
  return program;
}

for (const [server, name] of Object.entries(SERVERS)) {
  Deno.test(`${name} go on after dumps and restores`, async () => {
    await using scope = new Scope();
    const program = await start(scope, server);
    const running = scope.path("running");
    assertSuccess(
      await scope.ckpt(
        "dump",
        "-R",
        "--tcp-established",
        "-t",
        `${program.pid}`,
        "-D",
        running,
      ),
      "dump -R",
    );
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images), "--tcp-established");
      await scope.gone();
      await restore(scope, program, scope.path(images), "--tcp-established");
    }
    assertEquals(await program.verify(), "ok");
  });
}
