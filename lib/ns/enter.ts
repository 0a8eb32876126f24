/**
 * Starts ckpt once more in other namespaces, and gives up its own place to the
 * process that accompanies that one (c/enter/enter.c): nothing of this ckpt is
 * left. Everything that was typed is handed on.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { checked } from "../ffi/cause.ts";
import { describeErrno, EPERM } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import { originalOpenFileLimit } from "../ffi/library_path.ts";
import { openPidfd } from "../ffi/pidfd.ts";
import { close, O, open, syscall } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { readNamespace, readStat, readStatus } from "../proc/read.ts";
import { livingThread } from "../task/process_tree.ts";
import { type Inside, inside, ownNamespace, toldByOuter } from "./inside.ts";
import { ENTERED_KINDS, NAMESPACE_FLAGS, type NamespaceKind } from "./kinds.ts";

/** enum enter_parent of c/enter/enter.h. */
const PARENT = { ckpt: 0, parentOfCkpt: 1, nobody: 2, none: 3 } as const;

/** enum enter_step of c/enter/enter.h. */
const STEPS: Record<number, string> = {
  1: "entering them (setns)",
  2: "starting a process",
  3: "mounting a proc of the pid namespace",
  4: "choosing a pid",
  5: "executing ckpt",
  6: "setting the offsets of the clocks",
  7: "making them",
};

/** What c/enter is told; enum parameter of enter.h. */
interface Parameters {
  /** A descriptor: the pidfd of a root, or the program of the agent. */
  readonly target: number;
  /** CLONE_NEW* */
  readonly flags: number;
  readonly parent: keyof typeof PARENT;
  /** The pid of the ckpt inside; 0: any. */
  readonly ownPid: number;
  readonly rootInside: number;
  readonly rootOutside: number;
  /** For /proc/PID/timens_offsets. */
  readonly clockOffsets: string;
}

/**
 * Looks whether a tree is in other namespaces than ckpt, and if so, goes there:
 * this function does not return then, but in the ckpt inside.
 *
 * @param pid of the root
 * @param action what errors say was being done
 * @returns undefined where there is no need to
 * @throws CkptError refused, when it is not possible
 */
export function enterTree(pid: number, action: string): Inside | undefined {
  failIfRefused(action);
  const known = inside();
  if (known !== undefined) return known;
  // Nothing is told of a first thread that has ended.
  const tid = livingThread(readStat(pid)) ?? pid;
  const different = ENTERED_KINDS.filter((kind) => {
    const own = ownNamespace(kind);
    return own !== undefined && own !== readNamespace(tid, kind);
  });
  if (different.length === 0) return undefined;
  const rootInside = different.includes("pid")
    ? readStatus(pid).nsPid?.at(-1) ?? pid
    : pid;
  if (different.includes("pid") && rootInside !== 1) {
    throw new CkptError(EXIT.refused, action, [notInit(pid)]);
  }
  const target = openPidfd(pid);
  return enter(action, {
    target,
    flags: different.reduce((flags, kind) => flags | NAMESPACE_FLAGS[kind], 0),
    parent: "none",
    ownPid: 0,
    rootInside,
    rootOutside: pid,
    clockOffsets: "",
  });
}

/** New namespaces, and the root that is to be started in them. */
export interface NewNamespaces {
  readonly kinds: readonly NamespaceKind[];
  readonly root: number;
  /** Whose child it is to be. */
  readonly parent: "ckpt" | "parentOfCkpt" | "nobody";
  /** A pid for ckpt itself where it is in a new pid namespace. */
  readonly ownPid: number;
  /** See clocks.ts; for a new time namespace. */
  readonly clockOffsets: string;
}

/**
 * Starts an agent in new namespaces, and ckpt in these.
 *
 * @throws CkptError when it is not possible; else nothing is left of ckpt
 */
export function enterNew(
  { kinds, root, parent, ownPid, clockOffsets }: NewNamespaces,
  action: string,
): never {
  return enter(action, {
    target: Number(checked(library("enter").ckpt_agent_program(), action)),
    flags: kinds.reduce((flags, kind) => flags | NAMESPACE_FLAGS[kind], 0),
    parent,
    ownPid,
    rootInside: root,
    rootOutside: root,
    clockOffsets,
  });
}

/** The end of the init of a pid namespace is that of all in it. */
function notInit(pid: number): Reason {
  const own = readNamespace(pid, "pid");
  let init = pid;
  for (;;) {
    const { ppid } = readStat(init);
    if (ppid === 0 || readNamespace(ppid, "pid") !== own) break;
    init = ppid;
  }
  return {
    object: `task ${pid}`,
    why: "it is in a pid namespace of its own, and not the first process there",
    remedy: readStatus(init).nsPid?.at(-1) === 1
      ? `dump that: ckpt dump -t ${init}; or run ckpt inside: ` +
        `nsenter -t ${pid} -a ckpt ...`
      : `run ckpt inside: nsenter -t ${pid} -a ckpt ...`,
  };
}

/** @throws CkptError where the ckpt outside could not go inside */
export function failIfRefused(action: string): void {
  const told = toldByOuter();
  if (told === undefined || !("step" in told)) return;
  const { step, errno } = told;
  throw new CkptError(
    errno === EPERM ? EXIT.permission : EXIT.failed,
    action,
    [{
      object: "the namespaces of the program",
      why: `${STEPS[step] ?? "starting ckpt there"}: ${describeErrno(errno)}`,
      remedy: errno === EPERM
        ? "run ckpt as root, with CAP_SYS_ADMIN"
        : undefined,
    }],
  );
}

const F_SETFD = 2n;

/** @throws CkptError when it is not possible; else nothing is left of ckpt */
function enter(action: string, parameters: Parameters): never {
  const binary = open("/proc/self/exe", O.PATH);
  const directory = open("/", O.PATH | O.DIRECTORY);
  for (const fd of [binary, directory, parameters.target]) {
    syscall("fcntl", BigInt(fd), F_SETFD, 0n);
  }
  const { target, flags, parent, ownPid, rootInside, rootOutside } = parameters;
  const numbers = [
    binary,
    target,
    flags,
    PARENT[parent],
    ownPid,
    rootInside,
    rootOutside,
    directory,
  ];
  const typed = Deno.readFileSync("/proc/self/cmdline");
  const own = encodeText(
    `ckpt\0${parameters.clockOffsets}\0${numbers.join(" ")}\0`,
  );
  const text = new Uint8Array(own.length + typed.length);
  text.set(own);
  text.set(typed, own.length);
  const count = text.reduce((sum, byte) => byte === 0 ? sum + 1 : sum, 0);
  const UNKNOWN = 2n ** 64n - 1n;
  try {
    checked(
      library("enter").ckpt_enter(
        text,
        BigInt(count),
        originalOpenFileLimit() ?? UNKNOWN,
      ),
      action,
    );
  } finally {
    close(binary);
    close(directory);
    close(target);
  }
  throw new TypeError("ckpt was not replaced");
}
