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
import { startIn, survives } from "./mounts.ts";

async function ownTerminals(scope: Scope, mounts = ""): Promise<void> {
  await scope.unshareMounts(
    `mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /dev/pts
     mount --bind /dev/pts/ptmx /dev/ptmx
     ${mounts}`,
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

for (const args of [[], ["OTHER/ptmx"]]) {
  const name = args.length === 0 ? "/dev/pts" : "another devpts";

  const startSessions = async (scope: Scope) => {
    const other = scope.path("devpts");
    await scope.unshareMounts(
      `mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
       mount --bind /dev/pts/ptmx /dev/ptmx
       mount -t devpts -o newinstance,ptmxmode=0666 devpts ${other}`,
    );
    return await scope.start(
      "pty_sessions",
      ...args.map((arg) => arg.replace("OTHER", other)),
    );
  };

  Deno.test(`pty_sessions on ${name}: who has which terminal survives two dumps and restores`, async () => {
    await using scope = new Scope();
    const program = await startSessions(scope);
    const before = program.observe();
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      await restore(scope, program, scope.path(images));
      assertUnchanged(before, program.observe(), `after the ${images}`);
    }
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`pty_sessions on ${name}: who has which terminal is as before in a program left running`, async () => {
    await using scope = new Scope();
    const program = await startSessions(scope);
    const images = scope.path("images");
    assertSuccess(
      await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
      "dump",
    );
    assertEquals(await program.verify(), "ok");
  });
}

Deno.test("terminals of a tree with mounts of its own survive two dumps and restores", async () => {
  await using scope = new Scope();
  const script =
    `mkdir -p /dev/pts; mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
ln -sf pts/ptmx /dev/ptmx; [ -e /dev/tty ] || mknod -m 666 /dev/tty c 5 0`;
  await survives(scope, await startIn(scope, script, "pty_queues"));
});

Deno.test("who has which terminal survives in a tree with mounts of its own", async () => {
  await using scope = new Scope();
  const script =
    `mkdir -p /dev/pts; mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
ln -sf pts/ptmx /dev/ptmx; [ -e /dev/tty ] || mknod -m 666 /dev/tty c 5 0`;
  await survives(scope, await startIn(scope, script, "pty_sessions"));
});

for (const args of [[], ["raw"]]) {
  const name = ["pty_queues", ...args].join(" ");
  Deno.test(`${name}: terminals with bytes under way verify without a checkpoint`, async () => {
    await using scope = new Scope();
    await ownTerminals(scope);
    const program = await scope.start("pty_queues", ...args);
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name}: terminals with bytes under way survive two dumps and restores`, async () => {
    await using scope = new Scope();
    await ownTerminals(scope);
    const program = await scope.start("pty_queues", ...args);
    const before = program.observe();
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      await restore(scope, program, scope.path(images));
      assertUnchanged(before, program.observe(), `after the ${images}`);
    }
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name}: terminals with bytes under way are as before in a program left running`, async () => {
    await using scope = new Scope();
    await ownTerminals(scope);
    const program = await scope.start("pty_queues", ...args);
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
    assertEquals(await program.verify(), "ok");
  });
}

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

Deno.test("a screen server with a shell and a python3 comes back, and a new client types into them", async () => {
  await using scope = new Scope();
  await ownTerminals(scope);
  const work = scope.path("work");
  const env = {
    TERM: "xterm",
    LC_ALL: "C.UTF-8",
    SCREENDIR: `${work}/screens`,
  };
  Deno.mkdirSync(env.SCREENDIR, { mode: 0o700 });
  Deno.writeTextFileSync(
    `${work}/screenrc`,
    `deflogin off
startup_message off
shell /bin/bash
screen -t shell 0 env HISTFILE= PS1='$ ' bash --norc --noprofile
screen -t python 1 /usr/bin/python3 -q
`,
  );
  const program = await scope.startCommand(work, "screen", [
    ...["-D", "-m", "-S", "session", "-c", `${work}/screenrc`],
  ], env);
  const ask = (...args: string[]) =>
    scope.run("screen", ["-S", "session", ...args], { env });
  const isShown = async (window: string, what: RegExp) => {
    const copy = `${work}/copy`;
    await ask("-p", window, "-X", "hardcopy", copy);
    try {
      return what.test(Deno.readTextFileSync(copy)) || undefined;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  };
  const shows = (window: string, what: RegExp) =>
    until(`${window} shows ${what}`, () => isShown(window, what));
  const type = async (window: string, line: string, gives: RegExp) => {
    assertSuccess(await ask("-p", window, "-X", "stuff", `${line}\r`), line);
    await shows(window, gives);
  };
  await shows("shell", /^\$/m);
  await shows("python", /^>>>/m);
  await type("shell", "sleep 1000 & echo on''e", /^one$/m);
  await type("python", "x = 41; print('se' + 't')", /^set$/m);

  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  await type("shell", "jobs; echo tw''o", /Running +sleep 1000 &\s+two$/m);
  await type("python", "print(x + 1)", /^42$/m);
  // a client that is attached, on a terminal of its own
  const client = scope.bash(
    `export TERM=xterm SCREENDIR=${env.SCREENDIR}
     # at the end of its input script types ^D, which ends the shell
     exec < <(exec sleep 60 2>/dev/null)
     timeout 60 script -qfc 'stty rows 30 cols 90; screen -r session' /dev/null`,
  );
  await until("the client is attached", async () => {
    const { stdout } = await scope.run("screen", ["-ls"], { env });
    return stdout.includes("(Attached)") || undefined;
  });
  await ask("-X", "select", "shell");
  // its window gets the client's size some time after that is attached
  await until("the shell has the size of the client", async () => {
    await ask("-p", "shell", "-X", "stuff", "stty size\r");
    return await isShown("shell", /^\d+ 90$/m);
  });
  await ask("-X", "quit");
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
async function refuse(
  scope: Scope,
  script: string,
  mounts = "",
): Promise<string> {
  await ownTerminals(scope, mounts);
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

Deno.test("where nobody can look into the kernel, bytes that nobody has read are told, and stay", async () => {
  await using scope = new Scope();
  const message = await refuse(
    scope,
    "tty.setraw(slave); os.write(master, b'abc'); os.write(slave, b'defg')",
    "mount -t tmpfs none /sys/kernel/btf",
  );
  assertMatch(message, /descriptor 3 \(\/dev\/ptmx\).* 4 bytes/);
  assertMatch(message, /descriptor 4 \(\/dev\/pts\/0\).* 3 bytes/);
  assertStringIncludes(message, "there is no /sys/kernel/btf/vmlinux");
});

Deno.test("bytes for a slave that nobody has opened yet are told, and stay", async () => {
  await using scope = new Scope();
  const message = await refuse(
    scope,
    "new = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); os.write(new, b'abc')",
  );
  assertMatch(message, /terminal \/dev\/pts\/1: .*nobody has opened its slave/);
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
