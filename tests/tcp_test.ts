/** TCP connections whose other end is not part of the tree: it must not notice anything. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  compile,
  dump,
  LONG,
  type Program,
  restore,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { kill } from "./libc.ts";

const ESTABLISHED = "--tcp-established";
const SIGKILL = 9;

/** A program of a scope with a network of its own, and its peer in another one. */
interface Stream {
  readonly program: Program;
  /** Work directory of the peer. */
  readonly peer: string;
}

async function startStream(scope: Scope, version: 4 | 6): Promise<Stream> {
  const outside = await scope.unshareNetwork();
  const peer = scope.path("peer");
  const child = new Deno.Command("nsenter", {
    args: [
      outside,
      await compile("sk_stream"),
      peer,
      "listen",
      version === 4 ? "10.9.9.2" : "fd09::2",
    ],
    stdin: "null",
  }).spawn();
  scope.defer(async () => {
    kill(child.pid, SIGKILL);
    await child.status;
  });
  const port = await until("the peer listens", () => read(`${peer}/port`));
  const program = await scope.start(
    "sk_stream",
    "connect",
    version === 4 ? "10.9.9.2" : "fd09::2",
    port,
  );
  return { program, peer };
}

function read(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Ends the stream: both ends have to agree about every byte. */
async function agree({ program, peer }: Stream): Promise<void> {
  assertEquals(await program.verify(), "ok");
  const result = await until("the peer ends", () => read(`${peer}/result`));
  assertEquals(result.trim(), "ok");
  const [sent, received] = read(`${program.work}/totals`)!.split(" ");
  assertEquals(read(`${peer}/totals`), `${received} ${sent}`);
  assert(Number(sent) > 0 && Number(received) > 0, `${sent} ${received}`);
}

/** The tables that block connections. */
async function tables(scope: Scope): Promise<string> {
  const answer = await scope.run("nft", ["list", "tables"]);
  assertSuccess(answer, "nft");
  return answer.stdout;
}

for (const version of [4, 6] as const) {
  const rounds = LONG ? 100 : 3;
  Deno.test(`a peer elsewhere sees no error and no lost or repeated byte in ${rounds} dumps and restores over IPv${version}`, async () => {
    await using scope = new Scope();
    const stream = await startStream(scope, version);
    for (let i = 0; i < rounds; i++) {
      const images = scope.path(`images${i % 2}`);
      await dump(scope, stream.program, images, ESTABLISHED, "--replace");
      assertMatch(await tables(scope), /^table inet CRIU-\S+\n$/);
      await sleep(i % 3 * 100);
      await restore(scope, stream.program, images, ESTABLISHED);
      assertEquals(await tables(scope), "");
      await sleep(50);
    }
    await agree(stream);
  });
}

Deno.test("a program left running keeps its connection, and nothing is blocked", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  for (let i = 0; i < 3; i++) {
    const answer = await scope.ckpt(
      ...["dump", "-R", "-t", `${program.pid}`, ESTABLISHED, "--replace"],
      ...["-D", scope.path("images")],
    );
    assertSuccess(answer, "dump");
    assertEquals(await tables(scope), "");
  }
  await agree(stream);
});

Deno.test("without an option a connection is refused, and told where it leads and what to give", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  const images = scope.path("images");
  for (const command of ["dump", "check"]) {
    const answer = await scope.ckpt(
      ...[command, "-t", `${program.pid}`],
      ...command === "dump" ? ["-D", images] : [],
    );
    assertEquals(answer.code, EXIT.refused);
    const told = answer.stdout + answer.stderr;
    assertMatch(told, /a TCP connection to 10\.9\.9\.2:\d+/);
    assertMatch(told, /--tcp-established/);
  }
  await dump(scope, program, images, ESTABLISHED);
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused);
  assertMatch(answer.stderr, /the program has a TCP connection/);
  await restore(scope, program, images, ESTABLISHED);
  await agree(stream);
});

Deno.test("an address that this host has not is told before anything is restored", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  const images = scope.path("images");
  await dump(scope, program, images, ESTABLISHED);
  const expect = async (what: RegExp) => {
    const answer = await scope.ckpt(
      ...["restore", "-d", "-D", images, ESTABLISHED],
    );
    assertEquals(answer.code, EXIT.refused, answer.stderr);
    assertMatch(answer.stderr, what);
    // The block of the dump stays, for another try.
    assertMatch(await tables(scope), /^table inet CRIU-/);
  };
  const ip = async (...args: string[]) =>
    assertSuccess(await scope.run("ip", args), "ip");
  await ip("addr", "del", "10.9.9.1/24", "dev", "ckpt0");
  await expect(/this host has not the address 10\.9\.9\.1:\d+/);
  await ip("addr", "add", "10.9.9.1/24", "dev", "ckpt0");
  await restore(scope, program, images, ESTABLISHED);
  await agree(stream);
});

Deno.test("a restore that is killed leaves the connection to the next one", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  const images = scope.path("images");
  await dump(scope, program, images, ESTABLISHED);
  for (let i = 0; i < (LONG ? 50 : 5); i++) {
    const child = scope.spawnCkpt(
      ...["restore", "-d", "-D", images, ESTABLISHED],
    );
    while (!program.exists()) await sleep(1);
    kill(child.pid, SIGKILL);
    await child.status;
    const left = await until("nothing is left of it, or all", async () => {
      program.restored();
      program.poll();
      if (!program.exists()) return await tables(scope);
      return await tables(scope) === "" ? "" : undefined;
    });
    // It was too late.
    if (left === "") return await agree(stream);
    assertMatch(left, /^table inet CRIU-\S+\n$/);
  }
  await restore(scope, program, images, ESTABLISHED);
  await agree(stream);
});

Deno.test("a dump that is killed leaves the connection as it was, and nothing blocked", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  for (let ms = 20; ms < 200; ms += LONG ? 1 : 10) {
    const child = scope.spawnCkpt(
      ...["dump", "-R", "-t", `${program.pid}`, ESTABLISHED, "--replace"],
      ...["-D", scope.path("images")],
    );
    await sleep(ms);
    kill(child.pid, SIGKILL);
    await child.status;
    await until(
      "nothing is blocked",
      async () => await tables(scope) === "" ? true : undefined,
    );
  }
  await agree(stream);
});

Deno.test("with --tcp-close a connection is left out, and closed after the restore", async () => {
  await using scope = new Scope();
  const stream = await startStream(scope, 4);
  const { program } = stream;
  const images = scope.path("images");
  await dump(scope, program, images, "--tcp-close");
  assertEquals(await tables(scope), "");
  const refused = await scope.ckpt(
    ...["restore", "-d", "-D", images, ESTABLISHED],
  );
  assertEquals(refused.code, EXIT.refused);
  assertMatch(refused.stderr, /give --tcp-close/);
  await restore(scope, program, images, "--tcp-close");
  assertMatch(
    await program.verify(),
    /^(sending: Broken pipe|ending: .* not connected)/,
  );
});

Deno.test("ckpt clean lets go what a dump has blocked", async () => {
  await using scope = new Scope();
  const { program } = await startStream(scope, 4);
  const images = scope.path("images");
  await dump(scope, program, images, ESTABLISHED);
  const answer = await scope.ckpt("clean", images);
  assertSuccess(answer, "clean");
  assertMatch(answer.stdout + answer.stderr, /inet CRIU-/);
  assertEquals(await tables(scope), "");
});
