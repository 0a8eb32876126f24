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
    let ended = false;
    child.status.then(() => ended = true);
    while (!program.exists() && !ended) await sleep(1);
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

/**
 * A server of HTTP and twenty clients of it, each on one connection that is kept. Writes into `counts` how many
 * questions were answered, how many connections there ever were, and what went wrong.
 */
const KEEP_ALIVE = `
const http = require("http"), fs = require("fs");
const directory = process.argv[2];
const CLIENTS = 20;
let answered = 0, connections = 0, failed = "";
const server = http.createServer((question, answer) => {
  answer.end(\`answer to \${question.url}\`);
}).on("connection", () => connections++);
server.keepAliveTimeout = 600_000;
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
  const ask = (client) => {
    const path = \`/\${client}/\${answered}\`;
    http.get({ port, path, agent }, (answer) => {
      let text = "";
      answer.on("data", (data) => text += data);
      answer.on("end", () => {
        if (text !== \`answer to \${path}\`) failed ||= \`\${path}: \${text}\`;
        answered++;
        setTimeout(ask, 5, client);
      });
    }).on("error", (error) => failed ||= String(error));
  };
  for (let i = 0; i < CLIENTS; i++) ask(i);
  setInterval(() => {
    const counts = JSON.stringify({ answered, connections, failed });
    fs.writeFileSync(\`\${directory}/counts.new\`, counts);
    fs.renameSync(\`\${directory}/counts.new\`, \`\${directory}/counts\`);
  }, 20);
});
`;

Deno.test("a node server with twenty clients on kept connections goes on over dumps and restores", async () => {
  await using scope = new Scope();
  await scope.unshareNetwork();
  const work = scope.path("work");
  Deno.writeTextFileSync(`${work}/keep_alive.cjs`, KEEP_ALIVE);
  const program = await scope.startCommand(work, "/usr/bin/node", [
    `${work}/keep_alive.cjs`,
    work,
  ]);
  const answered = (more: number) =>
    until(`${more} more questions are answered`, () => {
      const { answered, connections, failed } = JSON.parse(
        read(`${work}/counts`) ?? '{"answered":0,"connections":0}',
      );
      assertEquals(failed ?? "", "");
      // None was lost and made anew.
      assert(connections <= 20, `${connections} connections`);
      return answered > more ? Number(answered) : undefined;
    });
  let count = await answered(200);
  const images = scope.path("images");
  for (let i = 0; i < (LONG ? 20 : 2); i++) {
    await dump(scope, program, images, ESTABLISHED, "--replace");
    await restore(scope, program, images, ESTABLISHED);
    count = await answered(count + 200);
  }
});

Deno.test("nginx goes on to answer on a connection that was made before it was dumped", async () => {
  await using scope = new Scope();
  const outside = await scope.unshareNetwork();
  const work = scope.path("work");
  Deno.writeTextFileSync(`${work}/page`, "a page of nginx\n");
  Deno.writeTextFileSync(
    `${work}/nginx.conf`,
    `daemon off;
pid ${work}/pid;
user root;
error_log ${work}/error.log;
events { worker_connections 64; }
http {
  access_log off;
  keepalive_timeout 600;
  keepalive_requests 1000000;
  client_body_temp_path ${work}/body;
  proxy_temp_path ${work}/proxy;
  fastcgi_temp_path ${work}/fastcgi;
  uwsgi_temp_path ${work}/uwsgi;
  scgi_temp_path ${work}/scgi;
  server { listen 10.9.9.1:8080; root ${work}; }
}
`,
  );
  const program = await scope.startCommand(work, "/usr/sbin/nginx", [
    ...["-e", `${work}/error.log`, "-c", `${work}/nginx.conf`],
  ]);
  await until("nginx listens", () => read(`${work}/pid`) || undefined);
  const client = new Deno.Command("nsenter", {
    args: [
      ...[outside, "python3", "-c"],
      `
import http.client, os, sys, time
work, answers = sys.argv[1], 0
connection = http.client.HTTPConnection("10.9.9.1", 8080)
connection.auto_open = False
for i in range(500):
    try:
        connection.connect()
        break
    except ConnectionRefusedError:
        time.sleep(0.02)
while not os.path.exists(work + "/stop"):
    connection.request("GET", "/page")
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or text != b"a page of nginx\\n":
        sys.exit("%d %s" % (answer.status, text))
    answers += 1
    with open(work + "/answers.new", "w") as file:
        file.write("%d" % answers)
    os.rename(work + "/answers.new", work + "/answers")
`,
      work,
    ],
    stdin: "null",
    stderr: "piped",
  }).spawn();
  const answers = (more: number) =>
    until("the client gets answers", () => {
      const count = Number(read(`${work}/answers`) ?? 0);
      return count > more ? count : undefined;
    });
  let count = await answers(20);
  const images = scope.path("images");
  for (let i = 0; i < 2; i++) {
    await dump(scope, program, images, ESTABLISHED, "--replace");
    await restore(scope, program, images, ESTABLISHED);
    count = await answers(count + 20);
  }
  Deno.writeTextFileSync(`${work}/stop`, "");
  const { success, stderr } = await client.output();
  assert(success, new TextDecoder().decode(stderr));
});

Deno.test("a connection that waits to be accepted is refused, or left out with --skip-in-flight", async () => {
  await using scope = new Scope();
  await scope.unshareNetwork();
  const work = scope.path("work");
  const program = await scope.startCommand(work, "/usr/bin/python3", [
    "-c",
    `
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
client.close()
open("ready", "w").write("1")
time.sleep(600)
`,
  ]);
  await program.ready();
  const images = scope.path("images");
  const answer = await scope.ckpt(
    ...["dump", "-t", `${program.pid}`, "-D", images],
  );
  assertEquals(answer.code, EXIT.refused);
  assertMatch(answer.stderr, /waits to be accepted[^]*--skip-in-flight/);
  await dump(scope, program, images, "--skip-in-flight");
  await restore(scope, program, images);
});

for (const name of ["unread", "read"]) {
  Deno.test(`bytes around an urgent one (MSG_OOB) that is ${name} are not saved without it, and stay`, async () => {
    await using scope = new Scope();
    await scope.unshareNetwork();
    const work = scope.path("work");
    const program = await scope.startCommand(work, "/usr/bin/python3", [
      "-c",
      `
import os, select, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
client.send(b"before"), client.send(b"!", socket.MSG_OOB), client.send(b"after")
select.select([], [], [server])
if sys.argv[1] == "read": assert server.recv(1, socket.MSG_OOB) == b"!"
open("ready", "w").write("1")
while not os.path.exists("go"): time.sleep(0.01)
got = server.recv(100), server.recv(100)
open("result", "w").write("ok\\n" if got == (b"before", b"after") else str(got))
`,
      name,
    ]);
    await program.ready();
    const answer = await scope.ckpt(
      ...["dump", "-t", `${program.pid}`, "-D", scope.path("images")],
      ESTABLISHED,
    );
    assertEquals(answer.code, EXIT.refused);
    assertMatch(answer.stderr, /urgent byte \(MSG_OOB\)[^]*dump again when/);
    assertEquals(await program.verify(), "ok");
  });
}
