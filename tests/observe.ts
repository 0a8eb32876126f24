/**
 * Everything that /proc shows of the processes of a tree and their threads, as text that can be compared.
 *
 * What is left out, because it cannot or need not be the same after a restore:
 * - times and counters: start time, CPU times, page faults, context switches, I/O counts, `sched` statistics;
 * - memory in use (VmRSS and its parts, VmHWM, VmPeak, VmPTE, HugetlbPages): pages of files are read again when they are touched;
 * - VmPin: the kernel counts buffers that are registered with an io_uring for the process that made the ring;
 * - the queued signals of SigQ, which the kernel counts for the user as a whole (the limit is compared);
 * - FDSize: the kernel's table may be larger or smaller than it was;
 * - State: a thread that sleeps now may run the moment after; stopped, traced and dead ones are told apart;
 * - pending signals that a thread which is not stopped does not block: they are on their way to its handler;
 * - the kernel's internal task flags of `stat`;
 * - inode numbers of things without a name (shared anonymous memory, pipes, sockets, deleted files): the kernel numbers them
 *   anew. They are numbered here in the order in which the tree holds them, so that who shares what is compared;
 * - the order of children, which nothing promises;
 * - the number of the audit session, which the kernel counts up whenever a login uid is set;
 * - the number of the autogroup (its nice value is compared);
 * - `syscall` of threads that run, and of the main thread, which waits in a loop. A blocked call may turn into
 *   restart_syscall, as it does after any stop.
 * - of a dead process or thread, everything that neither its parent's wait nor a signal to it could tell: masks,
 *   limits, ...;
 * - the border between private anonymous areas that are alike: the kernel keeps two apart that were moved together by
 *   mremap, and makes one of them when they are mapped anew;
 * - how much time a timerfd has left, and how often it has expired; the number the kernel gives an eventfd; the
 *   order of what an epoll watches, which is that of addresses in the kernel;
 * - the order of file locks;
 * - VmFlags `sd` (soft-dirty), the trace that any memory tracking leaves.
 */

/**
 * Lines by the name of what they describe: `status`, `task/12/status`, `fd/3`, `maps`; for all processes but the
 * first with the pid before it: `57/status`.
 */
export type Observation = Map<string, string[]>;

const VOLATILE_STATUS =
  /^(State|VmPeak|VmHWM|VmRSS|RssAnon|RssFile|RssShmem|VmPTE|VmPin|VmSwap|HugetlbPages|FDSize|voluntary_ctxt_switches|nonvoluntary_ctxt_switches|Mems_allowed_list):/;

/** Fields of /proc/PID/stat that are compared, numbered as in proc(5); 52 is how a dead or stopped one came to it. */
const STAT_FIELDS = [
  ...[1, 2, 4, 5, 6, 7, 8, 18, 19, 20, 21, 23, 25, 26, 27, 28, 31, 32, 33, 34],
  ...[38, 40, 41, 45, 46, 47, 48, 49, 50, 51, 52],
];

/** What /proc/PID/sessionid says of a task without one: (u32)-1. */
const NO_AUDIT_SESSION = "4294967295";

const RESTART_SYSCALL = "219";

function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );
}

function lines(path: string): string[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return ["(absent)"];
    return [`(${error instanceof Error ? error.name : error})`];
  }
  if (text.endsWith("\n")) text = text.slice(0, -1);
  return text.split("\n");
}

function bytes(path: string): string[] {
  try {
    return hexadecimal(Deno.readFileSync(path)).match(/.{1,32}/g) ?? [];
  } catch (error) {
    return [`(${error instanceof Error ? error.name : error})`];
  }
}

/** Names in a directory; none where the process is dead and has given it up. */
function names(path: string): string[] {
  try {
    return Array.from(Deno.readDirSync(path), ({ name }) => name);
  } catch {
    return [];
  }
}

function link(path: string): string[] {
  try {
    return [Deno.readLinkSync(path)];
  } catch (error) {
    return [`(${error instanceof Error ? error.name : error})`];
  }
}

interface Area {
  start: string;
  end: string;
  /** Permissions, offset, device, inode and path. */
  what: string;
  flags: string;
}

function areas(pid: number): Area[] {
  const found: Area[] = [];
  for (const line of lines(`/proc/${pid}/smaps`)) {
    const header = /^([0-9a-f]+)-([0-9a-f]+) (.*)$/.exec(line);
    if (header) {
      const [, start, end, what] = header;
      found.push({
        start,
        end,
        what: what.trim().replace(
          /^(\S+ \S+) \S+ (\d+) +\/dev\/zero \(deleted\)$/,
          "$1 shared memory inode $2",
        ).replace(
          /^(\S+ \S+ \S+) (\d+) +(\/.* \(deleted\)|anon_inode:.*)$/,
          "$1 deleted inode $2 $3",
        ).replace(/^(\S+ \S+ \S+) \d+ +(socket:.*)$/, "$1 $2"),
        flags: "",
      });
    } else if (line.startsWith("VmFlags:")) {
      found[found.length - 1].flags = line.slice(8).replace(/ sd\b/, "").trim();
    }
  }
  return found;
}

/** Neighbours without a file and alike in everything, as one area. */
function merged(all: readonly Area[]): Area[] {
  const result: Area[] = [];
  for (const area of all) {
    const last = result.at(-1);
    if (
      last !== undefined && last.end === area.start &&
      last.what === area.what && last.flags === area.flags &&
      area.what.endsWith(" 00000000 00:00 0")
    ) {
      last.end = area.end;
    } else {
      result.push({ ...area });
    }
  }
  return result;
}

function stat(path: string, numbers = STAT_FIELDS): string[] {
  const line = lines(path)[0];
  const end = line.lastIndexOf(")");
  const fields = [
    "",
    line.slice(0, line.indexOf(" ")),
    line.slice(line.indexOf("("), end + 1),
    ...line.slice(end + 2).split(" "),
  ];
  if (/^[ZX]$/.test(fields[3])) numbers = DEAD_STAT_FIELDS;
  return numbers.map((number) => `field ${number}: ${fields[number]}`);
}

/** What is left of a zombie: a process, or the first thread of one. */
const DEAD_STATUS = /^(Name|State|Tgid|Pid|PPid|Uid|Gid|NSpid|NSpgid|NSsid):/;
const DEAD_STAT_FIELDS = [1, 2, 3, 4, 5, 6, 38, 52];

/** True when no thread of the process lives any more. */
function isDead(pid: number): boolean {
  return /^State:\t[ZX]/m.test(lines(`/proc/${pid}/status`).join("\n")) &&
    names(`/proc/${pid}/task`).length <= 1;
}

/** A thread of the process that has not ended: memory and descriptors are found under its id only. */
function livingThread(pid: number): number {
  const tids = names(`/proc/${pid}/task`).map(Number).sort((a, b) => a - b);
  const isLiving = (tid: number) =>
    !/^State:\t[ZX]/m.test(lines(`/proc/${tid}/status`).join("\n"));
  return isLiving(pid) ? pid : tids.find(isLiving) ?? pid;
}

function status(path: string): string[] {
  const all = lines(path);
  const state = all.find((line) => line.startsWith("State:")) ?? "";
  if (/^State:\t[ZX]/.test(state)) {
    return all.filter((line) => DEAD_STATUS.test(line));
  }
  const stopped = /^State:\t[Tt]/.test(state);
  const kept = all.filter((line) => !VOLATILE_STATUS.test(line))
    .map((line) => line.replace(/^SigQ:\t\d+/, "SigQ:\t(used)"));
  if (stopped) return [state, ...kept];
  const waiting: Record<string, bigint> = {
    ShdPnd: signalSet(all, "ShdPnd") === 0n ? 0n : blockedByAll(path),
    SigPnd: signalSet(all, "SigBlk"),
  };
  return [
    "State: neither stopped nor dead",
    ...kept.map((line) => {
      const name = line.split(":")[0];
      if (!(name in waiting)) return line;
      const pending = signalSet(all, name) & waiting[name];
      return `${name}:\t${pending.toString(16).padStart(16, "0")}`;
    }),
  ];
}

function signalSet(status: readonly string[], name: string): bigint {
  const line = status.find((line) => line.startsWith(`${name}:`));
  return BigInt(`0x${line?.split("\t")[1] ?? "0"}`);
}

/** All that can be blocked: pthread_create(3) begins threads so, and sets their masks a moment later. */
const EVERYTHING_BLOCKED = 0xfffffffffffbfeffn;

/** Whether a process has a thread that has not yet begun with what it was made for (or which blocks all signals). */
export function hasNewThread(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  return names(tasks).some((tid) =>
    signalSet(lines(`${tasks}/${tid}/status`), "SigBlk") === EVERYTHING_BLOCKED
  );
}

/** Whether a descriptor of the process leads to a path. */
export function hasOpen(pid: number, path: string): boolean {
  const descriptors = `/proc/${pid}/fd`;
  return names(descriptors).some((fd) =>
    link(`${descriptors}/${fd}`)[0] === path
  );
}

/** What no thread of the process takes whose status, or whose thread's, is at a path. */
function blockedByAll(path: string): bigint {
  const tasks = `${path.split("/").slice(0, 3).join("/")}/task`;
  return names(tasks).map((tid) => lines(`${tasks}/${tid}/status`))
    .filter((status) => !status.some((line) => /^State:\t[ZX]/.test(line)))
    .reduce((all, one) => all & signalSet(one, "SigBlk"), (1n << 64n) - 1n);
}

function systemCall(path: string): string[] {
  const words = lines(path)[0].split(" ");
  if (words.length < 9) return ["(running)"];
  const [number, ...rest] = words;
  const [sp, pc] = rest.slice(-2);
  return [`${number} sp ${sp} pc ${pc}`];
}

/** Children of all threads of a process, zombies included, in ascending order. */
export function childrenOf(pid: number): number[] {
  return names(`/proc/${pid}/task`).flatMap((tid) => children(pid, tid))
    .sort((a, b) => a - b);
}

function children(pid: number, tid: string): number[] {
  return lines(`/proc/${pid}/task/${tid}/children`)[0].split(" ")
    .filter((word) => /^\d+$/.test(word)).map(Number).sort((a, b) => a - b);
}

/** The process and all below it, parents before their children; without those that `counts` leaves out. */
export function treeOf(
  pid: number,
  counts: (pid: number) => boolean = () => true,
): number[] {
  const found = [pid];
  for (const parent of found) {
    found.push(...childrenOf(parent).filter(counts));
  }
  return found;
}

/** Without what runs on: the time a timerfd has left, and its expiries, unless there are none. */
function descriptor(path: string): string[] {
  const all = lines(path);
  const watched = all.filter((line) => line.startsWith("tfd:")).sort();
  const locks = all.filter((line) => line.startsWith("lock:"))
    .map((line) => line.replace(/\d+: /, "")).sort();
  const repeats = all.some((line) => /^it_interval: \((?!0, 0\))/.test(line));
  return [
    ...all.filter((line) => !/^(eventfd-id|tfd|lock):/.test(line)),
    ...watched,
    ...locks,
  ].map((line) =>
    line.replace(
      /^it_value: \((?!0, 0\)).*/,
      "it_value: (running)",
    ).replace(
      /^it_value: .*/,
      (value) => repeats ? "it_value: (running)" : value,
    ).replace(/^ticks: (?!0$)\d+/, "ticks: (some)")
  );
}

/** Numbers what has no name by the order in which it is met. */
class Numbers {
  readonly #known = new Map<string, string>();

  #number(inode: string): string {
    const number = this.#known.get(inode) ?? `#${this.#known.size}`;
    this.#known.set(inode, number);
    return number;
  }

  /** The lines of one thing; those of a descriptor begin with what it leads to. */
  renamed(lines: readonly string[]): string[] {
    // /proc makes an inode whenever it likes
    if (/^\/proc\/\d+(\/|$)/.test(lines[0])) {
      return lines.map((line) => line.replace(/^ino:\t\d+/, "ino:\t(any)"));
    }
    // Message queues are called so, too, which may be made again.
    const unnamed = /^(pipe|socket|anon_inode|pidfd):|^\/[^/]+$| \(deleted\)$/
      .test(
        lines[0],
      );
    return lines.map((line) =>
      line.replace(
        /\b(shared memory inode |deleted inode |pipe:\[|socket:\[)(\d+)/,
        (_, kind, inode) => kind + this.#number(inode),
      ).replace(
        // Made with O_TMPFILE.
        /\/#(\d+)(?= \(deleted\)$)/,
        (_, inode) => `/${this.#number(inode)}`,
      ).replace(
        // Of a map of eBPF.
        /^map_id:\t(\d+)/,
        (_, id) => `map_id:\t${this.#number(`map ${id}`)}`,
      ).replace(
        // What an epoll watches.
        /^(tfd:.* ino:)([0-9a-f]+)/,
        (_, rest, inode) => rest + this.#number(`${parseInt(inode, 16)}`),
      ).replace(
        /^ino:\t(\d+)/,
        (all, inode) => unnamed ? `ino:\t${this.#number(inode)}` : all,
      )
    );
  }
}

/** Takes the picture of a whole tree. It should be at rest: in check_ready(), stopped, or dead. */
export function observeTree(
  root: number,
  counts?: (pid: number) => boolean,
): Observation {
  const seen: Observation = new Map();
  const numbers = new Numbers();
  for (const pid of treeOf(root, counts)) {
    for (const [name, lines] of observe(pid)) {
      seen.set(
        pid === root ? name : `${pid}/${name}`,
        numbers.renamed(lines),
      );
    }
  }
  return seen;
}

/** Takes the picture of one process. */
export function observe(pid: number): Observation {
  const seen: Observation = new Map();
  seen.set("status", status(`/proc/${pid}/status`));
  seen.set("stat", stat(`/proc/${pid}/stat`));
  if (isDead(pid)) return seen;
  const living = livingThread(pid);
  const proc = `/proc/${living}`;
  const memory = merged(areas(living));
  seen.set(
    "maps",
    memory.map(({ start, end, what }) => `${start}-${end} ${what}`),
  );
  seen.set(
    "VmFlags",
    memory.map(({ start, end, flags }) => `${start}-${end} ${flags}`),
  );
  for (
    const name of [
      "limits",
      "cmdline",
      "environ",
      "personality",
      "timerslack_ns",
      "oom_score_adj",
      "loginuid",
      "sessionid",
      "comm",
      "cgroup",
      "timers",
      "coredump_filter",
      "mountinfo",
      "uid_map",
      "gid_map",
      "setgroups",
      "timens_offsets",
    ]
  ) {
    seen.set(name, lines(`${proc}/${name}`));
  }
  if (seen.get("sessionid")?.[0] !== NO_AUDIT_SESSION) {
    seen.set("sessionid", ["(set)"]);
  }
  seen.set("auxv", bytes(`${proc}/auxv`));
  seen.set("autogroup", [
    lines(`${proc}/autogroup`)[0].replace(/^\/autogroup-\d+/, ""),
  ]);
  for (const name of ["exe", "cwd", "root"]) {
    seen.set(name, link(`${proc}/${name}`));
  }
  for (const name of names(`${proc}/ns`)) {
    seen.set(`ns/${name}`, link(`${proc}/ns/${name}`));
  }
  for (const name of names(`${proc}/fd`)) {
    seen.set(`fd/${name}`, [
      ...link(`${proc}/fd/${name}`),
      ...descriptor(`${proc}/fdinfo/${name}`),
    ]);
  }
  for (const tid of names(`${proc}/task`)) {
    const task = `task/${tid}`;
    seen.set(`${task}/status`, status(`${proc}/${task}/status`));
    seen.set(`${task}/stat`, stat(`${proc}/${task}/stat`));
    seen.set(`${task}/comm`, lines(`${proc}/${task}/comm`));
    seen.set(`${task}/children`, [children(pid, tid).join(" ")]);
    seen.set(
      `${task}/sched`,
      lines(`${proc}/${task}/sched`).filter((line) =>
        /^(policy|prio|uclamp|ext)/.test(line)
      ),
    );
    if (tid !== `${pid}`) {
      seen.set(`${task}/syscall`, systemCall(`${proc}/${task}/syscall`));
    }
  }
  return seen;
}

function comparable(name: string, line: string, other: string): boolean {
  if (!name.endsWith("/syscall")) return true;
  if (line === "(running)" || other === "(running)") return false;
  const rest = (text: string) => text.slice(text.indexOf(" "));
  const restarted = [line, other].some((text) =>
    text.startsWith(`${RESTART_SYSCALL} `)
  );
  return !(restarted && rest(line) === rest(other));
}

/** One line for each thing that differs: what, before, after. */
export function difference(before: Observation, after: Observation): string[] {
  const found: string[] = [];
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const a = before.get(name) ?? [];
    const b = after.get(name) ?? [];
    if (/^(\d+\/)?(maps|VmFlags)$/.test(name)) {
      const before = new Set(a), after = new Set(b);
      found.push(
        ...a.filter((line) => !after.has(line)).map((line) =>
          `${name}: before: ${line}`
        ),
        ...b.filter((line) => !before.has(line)).map((line) =>
          `${name}: after: ${line}`
        ),
      );
      continue;
    }
    for (let i = 0; i < Math.max(a.length, b.length); i++) {
      const line = a[i] ?? "(nothing)", other = b[i] ?? "(nothing)";
      if (line !== other && comparable(name, line, other)) {
        found.push(`${name}: before: ${line}, after: ${other}`);
      }
    }
  }
  return found;
}
