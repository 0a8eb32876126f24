/**
 * What every end-to-end test is made of: a temporary directory, a program of tests/programs (or a real one) in it,
 * and the `ckpt` command. Everything that was started is ended when the scope is left, by pid.
 *
 * Tests that use this may not run side by side in one Deno process: some count the children of this process.
 */
import { assertEquals } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { allChildren, children, type Ending, kill, reap } from "./libc.ts";
import {
  difference,
  hasNewThread,
  hasOpen,
  type Observation,
  observeTree,
  treeOf,
} from "./observe.ts";

const HERE = new URL(".", import.meta.url).pathname;
const REPOSITORY = new URL("..", import.meta.url).pathname;

/** The command under test; `CKPT_BINARY` names another one. */
export const CKPT = Deno.env.get("CKPT_BINARY") ?? `${REPOSITORY}dist/ckpt`;

/** More and longer runs where a test knows them: `CKPT_LONG=1`. */
export const LONG = Deno.env.get("CKPT_LONG") === "1";

/** The directory compiled programs are kept in; a program is compiled again when its source is newer. */
const COMPILED = Deno.env.get("CKPT_TEST_PROGRAMS") ??
  `${REPOSITORY}dist/tests`;

/** No command and no program of a test takes this long, also on a machine that has much else to do. */
const PATIENCE_MS = 180_000;

const SIGKILL = 9;

export function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** Asks again and again until the answer is not undefined; throws with `what` after PATIENCE_MS. */
export async function until<T>(
  what: string,
  ask: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (let pause = 1;; pause = Math.min(pause * 2, 20)) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > end) throw new Error(`gave up waiting until ${what}`);
    await sleep(pause);
  }
}

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Compiles tests/programs/NAME.c where needed; returns the path of the executable. */
export async function compile(name: string): Promise<string> {
  const source = `${HERE}programs/${name}.c`;
  const target = `${COMPILED}/${name}`;
  const headers = ["check.h", "creds.h", "tree.h", "words.h"];
  const newest = Math.max(
    modified(source),
    ...headers.map((name) => modified(`${HERE}programs/${name}`)),
  );
  if (modified(target) > newest) return target;
  Deno.mkdirSync(COMPILED, { recursive: true });
  const unfinished = `${target}.${Deno.pid}`;
  const gcc = await new Deno.Command("gcc", {
    args: [
      "-std=gnu11",
      "-Wall",
      "-Wextra",
      "-Werror",
      "-O1",
      "-pthread",
      "-o",
      unfinished,
      source,
      "-lrt",
      "-lm",
    ],
    stderr: "piped",
  }).output();
  if (!gcc.success) {
    throw new Error(`gcc ${source}:\n${new TextDecoder().decode(gcc.stderr)}`);
  }
  Deno.renameSync(unfinished, target);
  return target;
}

/** What a command answered. */
export interface Answer {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command to its end; throws when it does not end. */
export async function run(
  command: string,
  args: string[],
  options: Deno.CommandOptions = {},
): Promise<Answer> {
  const child = new Deno.Command(command, {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...options,
  }).spawn();
  const timer = setTimeout(() => kill(child.pid, SIGKILL), PATIENCE_MS);
  let output: Deno.CommandOutput;
  try {
    output = await child.output();
  } finally {
    clearTimeout(timer);
  }
  const text = new TextDecoder();
  return {
    code: output.code,
    stdout: text.decode(output.stdout),
    stderr: text.decode(output.stderr),
  };
}

/** Name and session of a process, undefined where there is none (any more). */
function identity(pid: number): { name: string; session: string } | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const end = stat.lastIndexOf(")");
    return {
      name: stat.slice(stat.indexOf("(") + 1, end),
      session: stat.slice(end + 2).split(" ")[3],
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

const OWN_SESSION = identity(Deno.pid)?.session;

/** As the kernel shortens the name of the agent's program. */
const AGENT = "memfd:ckpt-agen";

/** True for what the tests start with Deno, which waits for it: it has the session of the tests. An agent gets it, too. */
function isCommand(pid: number): boolean {
  const known = identity(pid);
  return known?.session === OWN_SESSION && known?.name !== AGENT;
}

/** A place of its own for one test. Use with `await using`. */
export class Scope implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "ckpt-test-" });
  readonly #programs: Program[] = [];
  readonly #later: (() => void | Promise<void>)[] = [];
  readonly #known = children();
  /** What nsenter(1) is told, for all that the scope runs. */
  readonly #namespaces: string[] = [];

  constructor() {
    // programs that give up their privileges still work in here
    Deno.chmodSync(this.directory, 0o755);
  }

  /** A directory inside the scope, made where it does not exist. */
  path(name: string): string {
    const path = `${this.directory}/${name}`;
    Deno.mkdirSync(path, { recursive: true });
    return path;
  }

  /** Something to undo at the end of the scope, before the directory is removed. */
  defer(undo: () => void | Promise<void>) {
    this.#later.push(undo);
  }

  /** From here on everything runs in a mount namespace of the scope, in which `script` (sh) was run first. */
  async unshareMounts(script: string): Promise<void> {
    const started = this.path("mount-namespace");
    const holder = new Deno.Command("unshare", {
      args: [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        `${script}\n: > ${started}/done\nexec sleep ${PATIENCE_MS}`,
      ],
      cwd: this.directory,
      stdin: "null",
    }).spawn();
    this.defer(async () => {
      kill(holder.pid, SIGKILL);
      await holder.status;
    });
    this.#namespaces.push(`--mount=/proc/${holder.pid}/ns/mnt`);
    await until(
      "the mount namespace is there",
      () => modified(`${started}/done`) > 0 ? true : undefined,
    );
  }

  #inNamespace(command: string, args: string[]): [string, string[]] {
    if (this.#namespaces.length === 0) return [command, args];
    return ["nsenter", [...this.#namespaces, command, ...args]];
  }

  /**
   * From here on everything runs in a network namespace of the scope, which is connected with another one: the
   * addresses 10.9.9.1 and fd09::1 here, 10.9.9.2 and fd09::2 there.
   *
   * @returns what nsenter(1) is told to run something there
   */
  async unshareNetwork(): Promise<string> {
    const holders = ["inside", "outside"].map((name) =>
      new Deno.Command("unshare", {
        args: [
          "--net",
          "sh",
          "-ec",
          `: > ${this.directory}/${name}; exec sleep 600`,
        ],
        stdin: "null",
      }).spawn()
    );
    this.defer(async () => {
      for (const { pid } of holders) kill(pid, SIGKILL);
      for (const { status } of holders) await status;
    });
    for (const name of ["inside", "outside"]) {
      await until(
        "the network namespace is there",
        () => modified(`${this.directory}/${name}`) > 0 ? true : undefined,
      );
    }
    const [inside, outside] = holders.map(({ pid }) => pid);
    const script = `
      here="nsenter --net=/proc/${inside}/ns/net"
      there="nsenter --net=/proc/${outside}/ns/net"
      $here ip link add ckpt0 type veth peer name ckpt1 netns ${outside}
      $here sh -ec 'ip link set lo up; ip link set ckpt0 up; ip addr add 10.9.9.1/24 dev ckpt0
        ip addr add fd09::1/64 dev ckpt0 nodad'
      $there sh -ec 'ip link set lo up; ip link set ckpt1 up; ip addr add 10.9.9.2/24 dev ckpt1
        ip addr add fd09::2/64 dev ckpt1 nodad'`;
    const made = await run("sh", ["-ec", script]);
    assertEquals(made.code, 0, made.stderr);
    this.#namespaces.push(`--net=/proc/${inside}/ns/net`);
    return `--net=/proc/${outside}/ns/net`;
  }

  run(
    command: string,
    args: string[],
    options?: Deno.CommandOptions,
  ): Promise<Answer> {
    return run(...this.#inNamespace(command, args), options);
  }

  /** Runs a script of bash with $0 and the further arguments as given. */
  bash(script: string, ...args: string[]): Promise<Answer> {
    return this.run("bash", ["-c", script, ...args]);
  }

  ckpt(...args: string[]): Promise<Answer> {
    return this.run(CKPT, args);
  }

  /** Starts `ckpt` and does not wait for it. */
  spawnCkpt(...args: string[]): Deno.ChildProcess {
    const [command, all] = this.#inNamespace(CKPT, args);
    return new Deno.Command(command, {
      args: all,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** Starts a program of tests/programs and waits until it has built its state. */
  async start(name: string, ...args: string[]): Promise<Program> {
    const work = this.path(`work-${name}`);
    // a program that gives up its privileges still writes its result
    Deno.chmodSync(work, 0o777);
    const program = await this.startCommand(
      work,
      await compile(name),
      [work, ...args],
    );
    await program.ready();
    return program;
  }

  /** Starts any command in a session of its own, `work` being its working directory. */
  async startCommand(
    work: string,
    command: string,
    args: string[],
    env: Record<string, string> = {},
  ): Promise<Program> {
    const log = `${this.directory}/log`;
    const launched = await this.run(
      await compile("launch"),
      [log, work, command, ...args],
      {
        clearEnv: true,
        env: {
          PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
          LC_ALL: "C.UTF-8",
          CKPT_TEST: "1",
          ...env,
        },
      },
    );
    assertEquals(launched.code, EXIT.ok, launched.stderr);
    const program = new Program(Number(launched.stdout), work, log);
    this.#programs.push(program);
    return program;
  }

  /** A program that was started in another way, by the pid that it wrote; it is ended with the scope. */
  adopt(work: string): Program {
    const pid = Number(Deno.readTextFileSync(`${work}/ready`));
    const program = new Program(pid, work, `${this.directory}/log`);
    this.#programs.push(program);
    return program;
  }

  /**
   * Processes that came to this one since the scope began because their parents died, zombies reaped and left out.
   * Commands that the test itself started, in its own session, are none.
   */
  strangers(list = children): number[] {
    for (;;) {
      const pids = list().filter((pid) =>
        !this.#known.includes(pid) && !isCommand(pid)
      );
      const running = pids.filter((pid) => reap(pid) === "running");
      // The children of one that has just ended came to this process after its own were listed.
      if (running.length === pids.length) return running;
    }
  }

  /** Waits until nothing that this scope started is left; fails with the pids when something stays. */
  async gone(): Promise<void> {
    const isGone = () =>
      this.strangers().length === 0 && this.strangers(allChildren).length === 0;
    await until("nothing is left", () => isGone() || undefined).catch(() =>
      assertEquals(this.strangers(), [], "processes left")
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // a tracer goes first: what it traces cannot be reaped before
    for (const undo of this.#later.reverse()) await undo();
    for (const program of this.#programs) await program.kill();
    // what lost its parent came to this process; what ckpt left behind is for the tests to find before
    await until("what was left is reaped", () => {
      const left = this.strangers();
      for (const pid of left) kill(pid, SIGKILL);
      return left.length === 0 ? true : undefined;
    });
    for (const { id, creator } of sharedSegments()) {
      if (this.#programs.some(({ pid }) => pid === creator)) {
        await run("ipcrm", ["-m", id]);
      }
    }
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/** System V segments of the host that nobody is attached to; what a program leaves stays after its end. */
function sharedSegments(): { id: string; creator: number }[] {
  const [, ...lines] = Deno.readTextFileSync("/proc/sysvipc/shm").trim()
    .split("\n");
  return lines.map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[6] === "0")
    .map((fields) => ({ id: fields[1], creator: Number(fields[4]) }));
}

/**
 * A started program, with all processes below it; the same object goes on to stand for it after a restore, for the
 * pids are the same.
 */
export class Program {
  constructor(
    readonly pid: number,
    readonly work: string,
    readonly log: string,
  ) {}

  #read(name: string): string | undefined {
    try {
      return Deno.readTextFileSync(`${this.work}/${name}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /** How the program ended, or undefined while it runs. */
  #ending: Ending | undefined;

  poll(): Ending | undefined {
    const state = reap(this.pid);
    if (state !== "running" && state !== "not a child") this.#ending = state;
    return state === "running" ? undefined : this.#ending;
  }

  /** The program is there again (after a restore): what is known of its ending no longer holds. */
  restored(): void {
    this.#ending = undefined;
  }

  /** True while a process with this pid exists, be it a zombie. */
  exists(): boolean {
    return kill(this.pid, 0);
  }

  async ready(): Promise<void> {
    await until(`${this.work} is ready`, () => {
      const ending = this.poll();
      if (ending !== undefined) {
        throw new Error(
          `the program ended (${ending}) before it was ready: ${
            this.#read("result") ?? Deno.readTextFileSync(this.log)
          }`,
        );
      }
      return this.#read("ready");
    });
    // A second, for those that block all signals for good.
    const isOnItsWay = () =>
      hasOpen(this.pid, `${this.work}/ready`) || this.tree().some(hasNewThread);
    for (let ms = 0; ms < 1000 && isOnItsWay(); ms += 10) await sleep(10);
  }

  observe(): Observation {
    return observeTree(this.pid);
  }

  /** Pids of the program and of all processes below it, dead ones included. */
  tree(): number[] {
    return treeOf(this.pid);
  }

  /** Lets the program verify itself; returns its result and how it ended. */
  async verify(): Promise<string> {
    const pids = this.tree();
    Deno.writeTextFileSync(`${this.work}/go`, "");
    const ending = await this.ended();
    await allGone(pids);
    const result = this.result();
    return result === "ok\n" && ending === "exit 0"
      ? "ok"
      : `${result}${ending}\n${Deno.readTextFileSync(this.log)}`;
  }

  /** What the program has written about itself, before it ended or as it does. */
  result(): string {
    return this.#read("result") ?? "no result\n";
  }

  /** Waits until the program has ended and its pid is free. */
  async ended(): Promise<Ending> {
    const ending = await until(`task ${this.pid} has ended`, () => this.poll())
      .catch(async (error: Error) => {
        throw new Error(`${error.message}:\n${await describe(this.pid)}`);
      });
    if (this.exists()) throw new Error(`pid ${this.pid} is still in use`);
    return ending;
  }

  /** Takes back `go`, `result` and all reports, so that a restored copy can be asked once more. */
  forget(): void {
    for (const { name } of Deno.readDirSync(this.work)) {
      if (/^(go|result|report-.*)$/.test(name)) {
        Deno.removeSync(`${this.work}/${name}`);
      }
    }
  }

  /** Kills the program and everything below it. */
  async kill(): Promise<void> {
    if (reap(this.pid) !== "running") return;
    const pids = this.tree();
    for (const pid of pids) kill(pid, SIGKILL);
    await this.ended();
    await allGone(pids);
  }
}

/** What the processes of a session are doing, for the message of a test that has waited for them in vain. */
async function describe(session: number): Promise<string> {
  const columns = "pid,ppid,pgid,sid,stat,wchan:24,pending,blocked,args";
  const { stdout } = await run("ps", ["-o", columns, "-s", `${session}`]);
  return stdout;
}

/** Waits until none of the pids is in use; reaps those that came to this process when their parents died. */
async function allGone(pids: readonly number[]): Promise<void> {
  let left: number[] = [];
  await until(`all of ${pids} are gone`, () => {
    left = pids.filter((pid) => {
      reap(pid);
      return kill(pid, 0);
    });
    return left.length === 0 ? true : undefined;
  }).catch(() => assertEquals(left, [], "processes that did not end"));
}

/** The directories and the bytes of the files below a directory, to be put back later. */
export class Files {
  readonly #directories: string[] = [];
  readonly #bytes = new Map<string, Uint8Array<ArrayBuffer>>();

  constructor(directory: string) {
    for (const entry of Deno.readDirSync(directory)) {
      const path = `${directory}/${entry.name}`;
      if (entry.isFile) this.#bytes.set(path, Deno.readFileSync(path));
      if (entry.isDirectory) {
        const below = new Files(path);
        this.#directories.push(path, ...below.#directories);
        for (const [name, bytes] of below.#bytes) {
          this.#bytes.set(name, bytes);
        }
      }
    }
  }

  /** Puts the bytes back; files that are still there stay the same files. */
  putBack(): void {
    for (const path of this.#directories) {
      Deno.mkdirSync(path, { recursive: true });
    }
    for (const [path, bytes] of this.#bytes) {
      const file = Deno.openSync(path, {
        write: true,
        create: true,
      });
      // not emptied first: some filesystems then wait for the disk when the file is closed
      file.writeSync(bytes);
      if (file.statSync().size !== bytes.length) {
        file.truncateSync(bytes.length);
      }
      file.close();
    }
  }
}

/** A port of the loopback interface that nobody has. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** Fails unless the command succeeded; shows what it wrote. */
export function assertSuccess(answer: Answer, what: string): void {
  assertEquals(
    answer.code,
    EXIT.ok,
    `${what}: ${answer.stderr}${answer.stdout}`,
  );
}

/** Fails unless both observations are the same, but for what observe.ts lists. */
export function assertUnchanged(
  before: Observation,
  after: Observation,
  what: string,
): void {
  assertEquals(difference(before, after), [], what);
}

/** `ckpt dump` that ends the program; fails unless all of it is gone and its pids are free. */
export async function dump(
  scope: Scope,
  program: Program,
  images: string,
  ...options: string[]
): Promise<void> {
  const pids = program.tree();
  assertSuccess(
    await scope.ckpt("dump", "-t", `${program.pid}`, "-D", images, ...options),
    "dump",
  );
  await program.ended();
  await allGone(pids);
}

/** `ckpt restore -d`; fails unless a process has the pid again. */
export async function restore(
  scope: Scope,
  program: Program,
  images: string,
  ...options: string[]
): Promise<void> {
  program.restored();
  assertSuccess(
    await scope.ckpt("restore", "-d", "-D", images, ...options),
    "restore",
  );
  if (!program.exists()) {
    throw new Error(`no task ${program.pid} after the restore`);
  }
}
