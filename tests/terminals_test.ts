/**
 * Pseudo terminals that a tree makes itself. Each test has a devpts of its own, so that nobody else takes the numbers.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  type Answer,
  assertSuccess,
  assertUnchanged,
  dump,
  restore,
  Scope,
  until,
} from "./harness.ts";

async function ownTerminals(scope: Scope): Promise<void> {
  await scope.unshareMounts(
    `mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
     mount --bind /dev/pts/ptmx /dev/ptmx`,
  );
}

Deno.test("ptys: terminals in every state verify without a checkpoint", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const program = await scope.start("ptys");
  assertUnchanged(program.observe(), program.observe(), "at rest");
  assertEquals(await program.verify(), "ok");
});

Deno.test("ptys: terminals in every state survive two dumps and restores", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const program = await scope.start("ptys");
  const before = program.observe();
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
    assertUnchanged(before, program.observe(), `after the ${images}`);
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("ptys: terminals in every state are as before in a program left running", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const program = await scope.start("ptys");
  const before = program.observe();
  assertSuccess(
    await scope.ckpt(
      "dump",
      "-R",
      "-t",
      `${program.pid}`,
      "-D",
      scope.path("images"),
    ),
    "dump",
  );
  assertUnchanged(before, program.observe(), "after the dump");
  assertEquals(await program.verify(), "ok");
});

Deno.test("a python3 that talks with a shell on a terminal goes on, and the shell has its jobs", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const work = scope.path("work");
  const script = new URL("programs/pty_session.py", import.meta.url).pathname;
  const program = await scope.startCommand(work, "/usr/bin/python3", [
    script,
    work,
  ]);
  await program.ready();
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertEquals(await program.verify(), "ok");
});

Deno.test("script(1) records what a shell says before and after", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const work = scope.path("work");
  Deno.writeTextFileSync(
    `${work}/session`,
    `mkfifo clock; exec 8<>clock
stty rows 21 cols 83 -echo intr ^G; stty -a >before; tty >>before
echo one; echo >ready
until [[ -e go ]]; do read -rt 0.01 -u 8; done
stty -a >after; tty >>after; echo two </dev/tty >/dev/tty
cmp before after && echo ok >result`,
  );
  const program = await scope.startCommand(work, "script", [
    "-qfc",
    "bash session",
    "typescript",
  ]);
  await program.ready();
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertEquals(await program.verify(), "ok");
  assertMatch(
    Deno.readTextFileSync(`${work}/typescript`),
    /\none\r\ntwo\r\n/,
  );
});

/** A server of tmux, its socket in the work directory. */
class Tmux {
  constructor(readonly scope: Scope, readonly work: string) {}

  /** `-N`: never starts a server. */
  ask(...args: string[]): Promise<Answer> {
    return this.scope.run(
      "tmux",
      ["-N", "-S", `${this.work}/socket`, ...args],
      { env: { TERM: "xterm", LC_ALL: "C.UTF-8" } },
    );
  }

  async tell(...args: string[]): Promise<string> {
    const answer = await this.ask(...args);
    assertSuccess(answer, `tmux ${args[0]}`);
    return answer.stdout.trim();
  }

  /** Types a line, and waits for what it gives. */
  async type(pane: string, line: string, gives: RegExp): Promise<void> {
    await this.tell("send-keys", "-t", pane, "-l", line);
    await this.tell("send-keys", "-t", pane, "Enter");
    await this.shows(pane, gives);
  }

  async shows(pane: string, what: RegExp): Promise<void> {
    await until(`${pane} shows ${what}`, async () => {
      const text = await this.tell("capture-pane", "-p", "-t", pane);
      return what.test(text) ? true : undefined;
    });
  }
}

Deno.test("a tmux server with shells and a python3 comes back, and a new client types into them", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const work = scope.path("work");
  const tmux = new Tmux(scope, work);
  const shell = "env PS1='$ ' bash --norc --noprofile";
  const program = await scope.startCommand(
    work,
    "tmux",
    ["-S", `${work}/socket`, "-f", "/dev/null", "-D"],
    { TERM: "xterm", SHELL: "/bin/bash" },
  );
  await until("the server is there", async () => {
    const answer = await tmux.ask("list-commands");
    return answer.code === 0 ? true : undefined;
  });
  await tmux.tell("new-session", "-d", "-x", "80", "-y", "24", shell);
  await tmux.tell("new-window", "/usr/bin/python3 -q");
  await tmux.tell("split-window", shell);
  await tmux.type(":0", "sleep 1000 & echo on''e", /^one$/m);
  await tmux.shows(":1.0", /^>>>/m);
  await tmux.type(":1.0", "x = 41; print('se' + 't')", /^set$/m);
  await tmux.type(":1.1", `sh -c 'echo st""art; exec sleep 1001'`, /^start$/m);
  await tmux.tell("send-keys", "-t", ":1.1", "C-z");
  await tmux.shows(":1.1", /Stopped .*sleep 1001/);

  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  await tmux.type(":0", "jobs; echo tw''o", /Running +sleep 1000 &\s+two$/m);
  await tmux.type(":1.0", "print(x + 1)", /^42$/m);
  await tmux.type(
    ":1.1",
    "jobs; echo thr''ee",
    /Stopped .*sleep 1001.*\s+three$/m,
  );
  await tmux.tell("resize-window", "-t", ":0", "-x", "70", "-y", "20");
  await tmux.type(":0", "stty size", /^20 70$/m);
  // a client that is attached, on a terminal of its own
  const client = scope.bash(
    `TERM=xterm timeout 60 script -qfc 'tmux -S ${work}/socket attach -t :0' /dev/null </dev/null`,
  );
  await until(
    "the client is attached",
    async () => await tmux.tell("list-clients") === "" ? undefined : true,
  );
  await tmux.tell("detach-client", "-a");
  await tmux.tell("kill-server");
  await client;
  await program.ended();
});

Deno.test("a terminal whose number is taken at the restore is told with its holder", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const program = await scope.start("ptys");
  const images = scope.path("images");
  await dump(scope, program, images);
  const work = scope.path("other");
  const other = await scope.startCommand(work, "/usr/bin/python3", [
    "-c",
    "import os, time; a = os.openpty(); open('ready', 'w').write('%d' % os.getpid()); time.sleep(1000)",
  ]);
  await other.ready();
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    new RegExp(`/dev/pts/0: .*task ${other.pid} \\(python3\\)`),
  );
  await other.kill();
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

/** A python3 that has a terminal, and does something with it. */
async function refuse(scope: Scope, script: string): Promise<string> {
  await ownTerminals(scope);
  const work = scope.path("work");
  const program = await scope.startCommand(work, "/usr/bin/python3", [
    "-c",
    `import os, time, tty
master, slave = os.openpty()
${script}
open('ready', 'w').write('%d' % os.getpid())
time.sleep(1000)`,
  ]);
  await program.ready();
  const before = program.observe();
  const images = scope.path("images");
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    images,
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertUnchanged(before, program.observe(), "after the refusal");
  return answer.stderr;
}

Deno.test("bytes that nobody has read are told, and stay", async () => {
  await using scope = new Scope();
  const message = await refuse(
    scope,
    "tty.setraw(slave); os.write(master, b'abc'); os.write(slave, b'defg')",
  );
  assertMatch(message, /descriptor 3 \(\/dev\/ptmx\).* 4 bytes/);
  assertMatch(message, /descriptor 4 \(\/dev\/pts\/0\).* 3 bytes/);
});

Deno.test("a slave whose master is closed is refused", async () => {
  await using scope = new Scope();
  assertStringIncludes(
    await refuse(scope, "os.close(master)"),
    "whose master is closed",
  );
});

Deno.test("a terminal that the outside has open, too, is refused with who has it", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const program = await scope.start("ptys");
  const work = scope.path("other");
  const other = await scope.startCommand(work, "/usr/bin/python3", [
    "-c",
    "import os, time; a = os.open('/dev/pts/4', os.O_RDWR | os.O_NOCTTY); open('ready', 'w').write('%d' % os.getpid()); time.sleep(1000)",
  ]);
  await other.ready();
  const answer = await scope.ckpt("check", `${program.pid}`);
  assertEquals(answer.code, EXIT.refused);
  assertMatch(
    answer.stdout + answer.stderr,
    new RegExp(`/dev/pts/4.*task ${other.pid} \\(python3\\) outside`),
  );
});
