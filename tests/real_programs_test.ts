/**
 * Programs that nobody wrote for these tests: python3 with threads and with a pool of processes, bash with jobs and in
 * a pipeline, make, SQLite in the middle of a transaction, asyncio with sockets, nginx, gunicorn, node with io_uring.
 */
import { assertEquals, assertMatch } from "@std/assert";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  Files,
  freePort,
  type Program,
  restore,
  Scope,
  until,
} from "./harness.ts";

const SCRIPTS = new URL("programs/", import.meta.url).pathname;

/** Name of the test: interpreter, script, and what the script gets besides its directory. */
const PROGRAMS: Record<string, [string, string, ...string[]]> = {
  "python3 with threads": ["/usr/bin/python3", "counter.py"],
  "bash": ["/bin/bash", "loop.sh"],
  "sqlite3 in a transaction": [
    "/usr/bin/python3",
    "transaction.py",
    "unix-dotfile",
  ],
  "bash with background and stopped jobs": ["/bin/bash", "jobs.sh"],
  "sqlite3 in a transaction with record locks": [
    "/usr/bin/python3",
    "transaction.py",
    "unix",
  ],
  "sqlite3 with a write-ahead log": ["/usr/bin/python3", "wal.py"],
  "two sqlite3(1) on one write-ahead log": ["/bin/bash", "wal.sh"],
  "a bash pipeline in the middle of its work": ["/bin/bash", "pipeline.sh"],
  "a python3 pool of processes in the middle of its work": [
    "/usr/bin/python3",
    "pool.py",
  ],
  "python3 with asyncio and a child in the middle of a talk": [
    "/usr/bin/python3",
    "talk.py",
  ],
  "asyncio, tail -F and inotifywait that watch files": [
    "/usr/bin/python3",
    "follow.py",
  ],
  "make -j4 in the middle of a build": ["/bin/bash", "build.sh"],
};

/** Programs whose processes and files come and go: they are not compared, and a copy would not find its files. */
const CHANGING = /jobs|pipeline|make|write-ahead|watch/;

async function start(scope: Scope, name: string): Promise<Program> {
  const [command, script, ...args] = PROGRAMS[name];
  const work = scope.path("work");
  const program = await scope.startCommand(work, command, [
    `${SCRIPTS}${script}`,
    work,
    ...args,
  ]);
  await program.ready();
  return program;
}

for (const name of Object.keys(PROGRAMS)) {
  Deno.test(`${name} verifies without a checkpoint`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name} goes on after a dump and a restore`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    const files = program.observe();
    await dump(scope, program, scope.path("images"));
    await scope.gone();
    await restore(scope, program, scope.path("images"));
    if (!CHANGING.test(name)) {
      assertEquals(
        [...program.observe().keys()].sort(),
        [...files.keys()].sort(),
        "threads and descriptors",
      );
    }
    assertEquals(await program.verify(), "ok");
  });

  if (CHANGING.test(name)) {
    Deno.test(`${name} is left running by five dumps`, async () => {
      await using scope = new Scope();
      const program = await start(scope, name);
      for (let i = 0; i < 5; i++) {
        const images = scope.path(`images-${i}`);
        assertSuccess(
          await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
          "dump",
        );
      }
      assertEquals(await program.verify(), "ok");
    });
    continue;
  }

  Deno.test(`${name} is left running, and a copy of it goes on from the images`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    const images = scope.path("images");
    const files = new Files(program.work);
    assertSuccess(
      await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
      "dump",
    );
    assertEquals(await program.verify(), "ok");
    await scope.gone();
    program.forget();
    files.putBack();
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
  });
}

/** What a server of HTTP answers, or undefined when none is there. */
async function get(port: number): Promise<string | undefined> {
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(
      new TextEncoder().encode("GET /page HTTP/1.0\r\n\r\n"),
    );
    return await new Response(connection.readable).text();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) return undefined;
    throw error;
  }
}

Deno.test("nginx with its workers serves, is dumped and restored, and serves again", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const port = freePort();
  const pages = scope.path("work/pages");
  // The workers are of another user.
  Deno.chmodSync(work, 0o755);
  Deno.writeTextFileSync(`${pages}/page`, "a page of nginx\n");
  Deno.writeTextFileSync(
    `${work}/nginx.conf`,
    `
daemon off;
worker_processes 2;
pid ${work}/pid;
error_log ${work}/error.log;
events { worker_connections 64; }
http {
  access_log ${work}/access.log;
  client_body_temp_path ${work}/body;
  proxy_temp_path ${work}/proxy;
  fastcgi_temp_path ${work}/fastcgi;
  uwsgi_temp_path ${work}/uwsgi;
  scgi_temp_path ${work}/scgi;
  server { listen 127.0.0.1:${port}; root ${pages}; }
}
`,
  );
  const program = await scope.startCommand(work, "/usr/sbin/nginx", [
    "-e",
    `${work}/error.log`,
    "-c",
    `${work}/nginx.conf`,
  ]);
  const served = async () =>
    assertMatch(
      await until("nginx serves", () => get(port)),
      /a page of nginx/,
    );
  await served();
  assertEquals(program.tree().length, 3);
  const images = scope.path("images");
  for (let i = 0; i < 2; i++) {
    const before = program.observe();
    await dump(scope, program, images);
    assertEquals(await get(port), undefined);
    await restore(scope, program, images);
    assertUnchanged(before, program.observe(), "after the restore");
    for (let request = 0; request < 20; request++) await served();
    Deno.removeSync(images, { recursive: true });
    Deno.mkdirSync(images);
  }
  // A new worker takes the place of one that ends; the master is asked to end.
  const [, worker] = program.tree();
  Deno.kill(worker, "SIGKILL");
  await until(
    "there is another worker",
    () =>
      program.tree().length === 3 && !program.tree().includes(worker)
        ? true
        : undefined,
  );
  await served();
  Deno.kill(program.pid, "SIGQUIT");
  assertEquals(await program.ended(), "exit 0");
});

Deno.test("a node that works on files by io_uring goes on after a dump that leaves it running and two restores", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const script = `${SCRIPTS}node_files.cjs`;
  const env = { UV_USE_IO_URING: "1" };
  const program = await scope.startCommand(work, "node", [script, work], env);
  await program.ready();
  const links = [...Deno.readDirSync(`/proc/${program.pid}/fd`)]
    .map(({ name }) => Deno.readLinkSync(`/proc/${program.pid}/fd/${name}`));
  if (!links.includes("anon_inode:[io_uring]")) {
    console.log("this node has made no io_uring: less is proven");
  }
  // Requests may be under way at any moment: then it is to be dumped again.
  const dumped = (images: string, ...options: string[]) =>
    until("nothing is under way", async () => {
      const answer = await scope.ckpt(
        ...["dump", "--replace", "-t", `${program.pid}`, "-D", images],
        ...options,
      );
      if (/requests are under way/.test(answer.stderr)) return undefined;
      assertSuccess(answer, "dump");
      return true;
    });
  await dumped(scope.path("running"), "-R");
  for (const images of ["first", "second"].map((name) => scope.path(name))) {
    await dumped(images);
    await program.ended();
    await restore(scope, program, images);
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("gunicorn with its workers serves, is dumped and restored, and its master still looks after them", async () => {
  const WORKERS = 3;
  await using scope = new Scope();
  const work = scope.path("work");
  const port = freePort();
  Deno.writeTextFileSync(
    `${work}/application.py`,
    `
import os
served = 0
def application(environ, start_response):
    global served
    served += 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"worker %d has served %d" % (os.getpid(), served)]
`,
  );
  const program = await scope.startCommand(work, "/usr/bin/python3", [
    "/usr/bin/gunicorn",
    ...["--workers", `${WORKERS}`, "--bind", `127.0.0.1:${port}`],
    ...["--worker-tmp-dir", work, "--chdir", work, "application"],
  ]);
  const workers = () => program.tree().slice(1);
  /** How much each has served, by its answers. */
  const served = new Map<number, number>();
  const ask = async () => {
    const answer = await until("gunicorn serves", () => get(port));
    const found = /worker (\d+) has served (\d+)$/.exec(answer);
    assertEquals(found === null ? answer : "right", "right");
    const [pid, count] = [Number(found![1]), Number(found![2])];
    assertEquals(workers().includes(pid), true, `${pid} is a worker`);
    assertEquals(count, (served.get(pid) ?? 0) + 1, "it forgot nothing");
    served.set(pid, count);
  };
  await ask();
  await until(
    "all workers are there",
    () => workers().length === WORKERS || undefined,
  );
  const images = scope.path("images");
  for (let i = 0; i < 2; i++) {
    for (let request = 0; request < 30; request++) await ask();
    const before = workers();
    await dump(scope, program, images);
    assertEquals(await get(port), undefined);
    await restore(scope, program, images);
    assertEquals(workers(), before);
    for (let request = 0; request < 30; request++) await ask();
    Deno.removeSync(images, { recursive: true });
    Deno.mkdirSync(images);
  }
  const [killed] = workers();
  Deno.kill(killed, "SIGKILL");
  await until(
    "there is another worker",
    () =>
      workers().length === WORKERS && !workers().includes(killed) || undefined,
  );
  for (let request = 0; request < 30; request++) await ask();
  // The master hears of signals: one worker more, then the end.
  Deno.kill(program.pid, "SIGTTIN");
  await until(
    "there is one worker more",
    () => workers().length === WORKERS + 1 || undefined,
  );
  Deno.kill(program.pid, "SIGTERM");
  assertEquals(await program.ended(), "exit 0");
});
