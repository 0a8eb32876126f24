/**
 * Exchanges images with CRIU: `make interop CRIU=path CRIT=command`.
 *
 * For each program: crit reads every image that ckpt writes; CRIU restores what ckpt dumped; ckpt restores what CRIU
 * dumped; and the program verifies itself. What CRIU cannot do with images of its own is no fault of the exchange:
 * CRIU to CRIU comes first and is the measure.
 */
import { CKPT, compile, Program, run, Scope, until } from "../harness.ts";
import { ReservedHugePages } from "../huge_pages.ts";
import { kill, reap } from "../libc.ts";
import { container, startIn } from "../mounts.ts";
import { childOf, gone, isThere } from "../own_namespaces.ts";

const CRIU = Deno.env.get("CRIU") ?? "criu";
const CRIT = (Deno.env.get("CRIT") ?? "crit").split(" ");

/** Programs of tests/programs, with their arguments. */
const PROGRAMS = Deno.args.length > 0 ? Deno.args : [
  "mem_private",
  "mem_files",
  "mem_advice",
  "mem_growth",
  "identity",
  "registers",
  "fpu",
  "threads",
  "syscalls",
  "rseq",
  "robust",
  "sched",
  "signals_pending",
  "signal_actions",
  "in_handler",
  "itimers",
  "posix_timers",
  "creds",
  "thread_creds",
  "seccomp_filter",
  "seccomp_process",
  "seccomp_strict",
  "prctls",
  "personality",
  "limits",
  "membarrier",
  "files_regular",
  "files_devices",
  "directories",
  "pipes",
  "tree_child",
  "tree_shape 3 3 2",
  "tree_zombies",
  "tree_sessions",
  "tree_orphans",
  "tree_stopped",
  "tree_waits",
  "tree_clone files",
  "tree_clone fs",
  "tree_shared_memory",
  "tree_cow 16 4",
  "tree_pipes",
  "tree_fifos",
  "fd_eventfd plain",
  "fd_timerfd plain",
  "fd_signalfd",
  "fd_epoll plain",
  "fd_memfd plain",
  "exchange pipes",
  "exchange fifo",
  "exchange counters",
  "exchange epoll",
  "exchange memfd",
  "exchange pidfds",
  "exchange unix-pairs",
  "exchange unix-names",
  "exchange unix-gone",
  "exchange udp",
  "exchange raw",
  "exchange tcp-listen",
  "exchange netlink",
  "exchange packets",
  "exchange pty",
  "exchange tun",
  "exchange locks",
  "exchange paths",
  "exchange huge-shared",
  "exchange huge-private",
  "fd_kinds",
  "fd_contents",
  "random_descriptors 3 60",
  "aio plain",
  "file_locks",
  "file_leases",
  "tree_locks",
  "fd_inotify plain",
  "fd_fanotify plain",
  "watch_lost deleted",
  "tree_pending",
  "tree_owners",
  "random_tree 3 12",
  "sk_tcp plain",
  "pty_queues raw",
  "ghost_regular",
  "ghost_special",
  "ghost_names replaced",
  "ghost_names alias",
  "ghost_program deleted",
  "lost_file deleted",
  "lost_file below",
  "lost_file mapped",
  "lost_file linked",
  "lost_file directory",
  "lost_file special",
  "lost_file device",
  "mounts:plain mem_files",
  "mounts:parts files_regular",
  "mounts:peers tree_child",
  "mounts:file mem_files",
  "mounts:external mem_files",
  "mounts:plain mounts_nested",
  "namespaces:--pid mem_files",
  "namespaces:--pid,--uts,--ipc tree_child",
  "namespaces:--pid,--uts,--ipc,--net threads",
];

/** Mount namespaces of the program's own; everything it has open is in them. */
const MOUNTS: Readonly<Record<string, string>> = {
  plain: "mount -t tmpfs -o size=1m one /mnt; echo content > /mnt/file",
  parts: `mount -t tmpfs one /mnt; mkdir -p /mnt/a/b /mnt/c
    mount --bind /mnt/a/b /mnt/c; mount --bind /usr/share /srv
    mount -o remount,bind,ro /srv`,
  peers: `mount -t tmpfs one /mnt; mkdir /mnt/a /mnt/b /mnt/c
    mount -t tmpfs two /mnt/a; mount --make-shared /mnt/a
    mount --bind /mnt/a /mnt/b; mount --make-slave /mnt/b
    mount --bind /mnt/a /mnt/c`,
  file: `mount -t tmpfs one /mnt; echo content > /mnt/file; : > /mnt/point
    mount --bind /mnt/file /mnt/point`,
  external: ":",
};
const INSIDE = 'exec < /dev/null >> "$0/inner-log" 2>&1';

/** What both tools need to be told for a program. */
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  sk_tcp: ["--tcp-established"],
};
/** ckpt takes away only what nf_tables blocks, and iptables may not be there. */
const CRIU_ONLY: readonly string[] = ["--network-lock", "nftables"];

/** Images of a network namespace that are no entries: what ip(8) and others write. */
const RAW =
  /^(pages|tmpfs|ckpt|ifaddr|route6?|rule|ip6?tables|nftables)-.*\.img$/;

/** "ok", or in one line what went wrong. */
type Outcome = string;

function firstLines(text: string): string {
  return text.trim().split("\n").slice(-3).join(" | ").slice(0, 300);
}

async function act(
  scope: Scope,
  tool: string,
  action: "dump" | "restore",
  program: Program,
  images: string,
  options: readonly string[],
): Promise<Outcome> {
  const log = `${action}-by-${tool === CKPT ? "ckpt" : "criu"}.log`;
  const args = action === "dump"
    ? [
      "dump",
      "-l",
      "--link-remap",
      "-t",
      `${program.pid}`,
      "-D",
      images,
      "-v4",
      "-o",
      log,
      ...options,
    ]
    : ["restore", "-l", "-d", "-D", images, "-v4", "-o", log, ...options];
  // Only where this directory exists, CRIU refuses what needs a plugin.
  if (action === "restore" && tool !== CKPT) {
    args.push("--libdir", scope.path("plugins"));
  }
  const answer = await run(tool, args);
  if (answer.code !== 0) {
    let text = answer.stderr;
    try {
      text += Deno.readTextFileSync(`${images}/${log}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const errors = text.split("\n").filter((line) => /error/i.test(line));
    return `${action} exits with ${answer.code}: ${
      firstLines(errors.join("\n") || text)
    }`;
  }
  if (action === "dump") {
    // The one that waits for a program in other namespaces is another's child.
    await gone(program.pid);
    await scope.gone();
  } else if (!args.includes("--pidfile")) program.restored();
  return "ok";
}

/** A program that is restored wrongly may never end. */
async function verify(program: Program): Promise<Outcome> {
  try {
    return firstLines(await program.verify());
  } catch (error) {
    return firstLines((error as Error).message);
  }
}

/** No link that CRIU has made stays in the work directory. */
async function clean(images: string, { work }: Program): Promise<Outcome> {
  const answer = await run(CKPT, ["clean", images]);
  if (answer.code !== 0) return `clean: ${firstLines(answer.stderr)}`;
  const left = [...Deno.readDirSync(work)].map(({ name }) => name)
    .filter((name) => name.startsWith("link_remap."));
  return left.length === 0 ? "ok" : `clean leaves ${left.join(" ")}`;
}

/** What is to become the root has to be a mount, for CRIU. */
async function bindRoot(scope: Scope): Promise<string> {
  const root = scope.path("new-root");
  await run("mount", ["--bind", "/", root]);
  await run("mount", ["--make-private", root]);
  scope.defer(async () => {
    await run("umount", [root]);
  });
  return root;
}

/** A file system of the outside, which the program has at /srv. */
async function mountOutside(scope: Scope): Promise<string> {
  const outside = scope.path("outside");
  await run("mount", ["-t", "tmpfs", "outside", outside]);
  Deno.writeTextFileSync(`${outside}/file`, "content");
  scope.defer(async () => {
    await run("umount", [outside]);
  });
  return outside;
}

/** A program to be exchanged, and what the tools have to be told. */
interface Subject {
  readonly program: Program;
  readonly dumping: readonly string[];
  readonly restoring: readonly string[];
  /** Where the restore writes the pid, of a program that gets another one. */
  readonly pidfile?: string;
}

/** @param name "program arguments", after "mounts:SHAPE " or "namespaces:OPTIONS " */
async function start(scope: Scope, name: string): Promise<Subject> {
  const [, kind, shape = ""] = /^(?:(mounts|namespaces):(\S+) )?/.exec(name)!;
  const [file, ...args] = name.slice(kind ? `${kind}:${shape} `.length : 0)
    .split(" ");
  const told = OPTIONS[file] ?? [];
  if (kind === "namespaces") {
    const program = await startInNamespaces(
      scope,
      shape.split(","),
      file,
      ...args,
    );
    const pidfile = `${scope.path("pid")}/pid`;
    const rooted = ["--root", await bindRoot(scope)];
    return {
      program,
      dumping: told,
      restoring: [...told, ...rooted, "--pidfile", pidfile],
      pidfile,
    };
  }
  if (kind === undefined) {
    const program = await scope.start(file, ...args);
    return { program, dumping: told, restoring: told };
  }
  const rooted = ["--root", await bindRoot(scope)];
  const after = `${MOUNTS[shape]}\n${INSIDE}`;
  if (shape !== "external") {
    const program = await startIn(scope, after, file, ...args);
    return { program, dumping: told, restoring: [...told, ...rooted] };
  }
  const outside = await mountOutside(scope);
  const before = `mount --bind "${outside}" srv`;
  const script = { before, after, propagation: "private" };
  return {
    program: await startIn(scope, script, file, ...args),
    dumping: ["--external", "mnt[/srv]:srv"],
    restoring: [...rooted, "--external", `mnt[srv]:${outside}`],
  };
}

/** As the init of a pid namespace, with mounts of its own. */
async function startInNamespaces(
  scope: Scope,
  kinds: readonly string[],
  name: string,
  ...args: string[]
): Promise<Program> {
  const work = scope.path("work");
  const unshare = await scope.startCommand(work, "unshare", [
    ...["--fork", ...kinds, "--mount", "--propagation", "private"],
    ...["setsid", "bash", "-c"],
    `${container("")}\n${INSIDE}\ncd "$2"\nexec "\${@:3}"`,
    ...[scope.directory, scope.path("root"), work],
    ...[await compile(name), work, ...args],
  ]);
  const pid = await until("unshare has a child", () => childOf(unshare.pid));
  scope.defer(() => {
    kill(pid, SIGKILL);
  });
  await until("it is ready", () => isThere(`${work}/ready`) || undefined);
  return new Program(pid, work, unshare.log);
}

const SIGKILL = 9;

/** One program dumped by one tool and restored by another; `look` sees the images in between. */
async function exchange(
  name: string,
  from: string,
  to: string,
  look: (images: string) => Promise<Outcome> = () => Promise.resolve("ok"),
): Promise<Outcome> {
  await using scope = new Scope();
  const subject = await start(scope, name);
  const { dumping, restoring, pidfile } = subject;
  let { program } = subject;
  const only = (tool: string) =>
    tool !== CKPT && /\bsk_tcp\b|--net\b/.test(name) ? CRIU_ONLY : [];
  const images = scope.path("images");
  for (
    const step of [
      () =>
        act(scope, from, "dump", program, images, [...dumping, ...only(from)]),
      () => look(images),
      async () => {
        const outcome = await act(scope, to, "restore", program, images, [
          ...restoring,
          ...only(to),
        ]);
        if (outcome !== "ok" || pidfile === undefined) return outcome;
        const pid = Number(Deno.readTextFileSync(pidfile));
        scope.defer(() => {
          kill(pid, SIGKILL);
          reap(pid);
        });
        program = new Program(pid, program.work, program.log);
        return outcome;
      },
      () => verify(program),
      () => to === CKPT ? clean(images, program) : Promise.resolve("ok"),
    ]
  ) {
    const outcome = await step();
    if (outcome !== "ok") return outcome;
  }
  return "ok";
}

/** crit decodes every image of CRIU's format; it cannot know ckpt's own. */
async function decode(images: string): Promise<Outcome> {
  for (const entry of Deno.readDirSync(images)) {
    if (!entry.name.endsWith(".img") || RAW.test(entry.name)) continue;
    const [command, ...args] = CRIT;
    const answer = await run(command, [
      ...args,
      "decode",
      "-i",
      `${images}/${entry.name}`,
    ]);
    if (answer.code !== 0) {
      return `crit cannot read ${entry.name}: ${firstLines(answer.stderr)}`;
    }
    JSON.parse(answer.stdout);
  }
  return "ok";
}

const hugePages = new ReservedHugePages(16);
let failures = 0;
let measured = 0;
for (const name of PROGRAMS) {
  const measure = await exchange(name, CRIU, CRIU);
  if (measure === "ok") measured++;
  for (
    const [what, outcome] of [
      ["ckpt to CRIU", await exchange(name, CKPT, CRIU, decode)],
      ["CRIU to ckpt", await exchange(name, CRIU, CKPT)],
    ]
  ) {
    const expected = measure === "ok";
    const unread = outcome.startsWith("crit cannot");
    if (outcome !== "ok" && (expected || unread)) failures++;
    const verdict = outcome === "ok"
      ? "ok"
      : expected || unread
      ? `FAILED: ${outcome}`
      : `as CRIU alone, which fails (${measure}): ${outcome}`;
    console.log(`${name}, ${what}: ${verdict}`);
  }
}
if (measured === 0) {
  console.log(`${CRIU} cannot dump and restore any of the programs`);
  failures++;
}
console.log(failures === 0 ? "all is well" : `${failures} failed`);
hugePages[Symbol.dispose]();
Deno.exit(failures === 0 ? 0 : 1);
