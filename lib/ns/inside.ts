/**
 * What a ckpt knows that was started in other namespaces than those in which
 * the user called it (enter.ts), and what it asks of the process that stands
 * where the user called it (c/enter/enter.c).
 */
import {
  readLink,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { ENOENT } from "../ffi/errno.ts";
import { decodeText } from "../ffi/text.ts";
import {
  NAMESPACE_FLAGS,
  NAMESPACE_KINDS,
  type NamespaceKind,
} from "./kinds.ts";

/** The name of the variable in which c/enter tells us. */
const VARIABLE = "CKPT_INSIDE";

/** A root that was started in new namespaces, to be restored. */
export interface StartedRoot {
  /** A descriptor: the agent ends when it is closed, until it is traced. */
  readonly lifeline: number;
}

/** Of a ckpt that was started inside. */
export interface Inside {
  readonly channel: number;
  /** The pid of the tree's root, as it is seen here, and by the user. */
  readonly root: number;
  readonly rootOutside: number;
  /** Of a restore. */
  readonly started: StartedRoot | undefined;
  /** The kinds of namespaces that were entered. */
  readonly entered: ReadonlySet<NamespaceKind>;
  /** A descriptor of the root directory of where the user called. */
  readonly directory: number;
  /** Ids of the namespaces in which the user called. */
  readonly outer: ReadonlyMap<NamespaceKind, string>;
}

/** What the variable says: of one inside, or why there is none. */
export type Told = Inside | { readonly step: number; readonly errno: number };

/** @returns undefined when it is none that c/enter writes */
export function parseTold(text: string): Told | undefined {
  const words = text.split(" ");
  if (words[0] === "error" && words.length === 3) {
    return { step: Number(words[1]), errno: Number(words[2]) };
  }
  const FIRST_ID = 6;
  if (words.length !== FIRST_ID + NAMESPACE_KINDS.length) return undefined;
  const [channel, lifeline, root, rootOutside, flags, directory] = words.map(
    Number,
  );
  return {
    channel,
    root,
    rootOutside,
    started: lifeline < 0 ? undefined : { lifeline },
    entered: new Set(
      NAMESPACE_KINDS.filter((kind) => (flags & NAMESPACE_FLAGS[kind]) !== 0),
    ),
    directory,
    outer: new Map(
      NAMESPACE_KINDS.map((kind, i) =>
        [kind, `${kind}:[${words[FIRST_ID + i]}]`] as const
      ),
    ),
  };
}

const F_SETFD = 2n;
const FD_CLOEXEC = 1n;

let told: { value: Told | undefined } | undefined;

/** Undefined for a ckpt that was called by a user and is where that is. */
export function toldByOuter(): Told | undefined {
  if (told !== undefined) return told.value;
  const text = Deno.env.get(VARIABLE);
  told = { value: text === undefined ? undefined : parseTold(text) };
  if (text !== undefined) Deno.env.delete(VARIABLE);
  const { value } = told;
  if (value !== undefined && "channel" in value) {
    const { channel, started, directory } = value;
    for (const fd of [channel, directory, started?.lifeline]) {
      if (fd !== undefined) syscall("fcntl", BigInt(fd), F_SETFD, FD_CLOEXEC);
    }
  }
  return value;
}

/** Undefined where ckpt works in the namespaces in which it was called. */
export function inside(): Inside | undefined {
  const value = toldByOuter();
  return value !== undefined && "channel" in value ? value : undefined;
}

/** Links to ckpt's own namespaces, by name; only of kinds the kernel has. */
let own: ReadonlyMap<string, string> | undefined;

/** Of the namespaces that ckpt itself is in: "net:[4026531840]". */
export function ownNamespace(name: string): string | undefined {
  own ??= new Map(
    [...NAMESPACE_KINDS, "pid_for_children", "time_for_children"].flatMap(
      (name) => {
        try {
          const link = readLink(`/proc/self/ns/${name}`);
          return [[name, decodeText(link)] as const];
        } catch (error) {
          // A kernel without this kind; or pid_for_children of a namespace in
          // which no process was made yet.
          const none = error instanceof SyscallError && error.errno === ENOENT;
          if (none) return [];
          throw error;
        }
      },
    ),
  );
  return own.get(name);
}

/** Whether ckpt is in another namespace than in which the user called it. */
export function isEntered(kind: NamespaceKind): boolean {
  return inside()?.entered.has(kind) ?? false;
}

/**
 * What leads to paths as the tree has them, put before them; "" where they are
 * ckpt's own, or those of a mount namespace of the tree's own. In another pid
 * namespace ckpt works in a copy of the mount namespace: the paths are the
 * same, but on mounts of its own.
 */
export function wayToMounts(): string {
  const place = inside();
  if (place === undefined || !place.entered.has("pid")) return "";
  const mounts = decodeText(readLink(`/proc/${place.root}/ns/mnt`));
  return mounts === expectedNamespace("mnt")
    ? `/proc/self/fd/${place.directory}/.`
    : "";
}

/**
 * The namespace that a tree has to be in: the one that was entered for it, or
 * that of the user.
 */
export function expectedNamespace(name: string): string | undefined {
  const known = inside();
  const kind = name as NamespaceKind;
  return known === undefined || known.entered.has(kind) ||
      !known.outer.has(kind)
    ? ownNamespace(name)
    : known.outer.get(kind);
}

/** enum message_kind of c/enter/enter.h. */
const MESSAGE = { ending: 1, released: 2 } as const;

function tell(
  { channel }: Inside,
  kind: keyof typeof MESSAGE,
  value: number,
  texts: readonly string[] = [],
): void {
  const tail = new TextEncoder().encode(texts.map((t) => `${t}\0`).join(""));
  const HEAD = 8;
  const bytes = new Uint8Array(HEAD + tail.length);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, MESSAGE[kind], true);
  view.setInt32(4, value, true);
  bytes.set(tail, HEAD);
  syscallBuffer1("write", BigInt(channel), bytes, BigInt(bytes.length));
}

/**
 * What is printed at the end of a tree: the texts before and after the exit
 * status, and those before and after the number of a signal. Where nobody waits
 * for that, the first alone.
 */
export type EndTexts = readonly [string, string, string, string];

/** How the user's process goes on when the tree that was restored runs. */
export interface Release {
  /** It waits for the end of the tree, and ends in the same way. */
  readonly wait: boolean;
  /** What a terminal sends to it is handed on. */
  readonly passTerminal: boolean;
  readonly texts: EndTexts | undefined;
}

const RELEASED_WAIT = 1;
const RELEASED_PASS_TERMINAL = 2;

/**
 * To be said before the tree is let go, as that may end at once, and ckpt with
 * the init of its pid namespace; and once more when all is done.
 */
export function released(
  place: Inside,
  { wait, passTerminal, texts }: Release,
): void {
  tell(
    place,
    "released",
    (wait ? RELEASED_WAIT : 0) + (passTerminal ? RELEASED_PASS_TERMINAL : 0),
    texts ?? ["", "", "", ""],
  );
}

/**
 * The tree ends together with ckpt, and the user's process waits for that.
 *
 * @param code what it exits with where ckpt cannot any more
 */
export function ending(place: Inside, code: number): void {
  tell(place, "ending", code);
}

let lastAct: ((code: number) => void) | undefined;

/** What is left to be done when all has been told to the user. */
export function atTheEnd(act: (code: number) => void): void {
  lastAct = act;
}

/** @param code what ckpt is about to exit with */
export function actAtTheEnd(code: number): void {
  lastAct?.(code);
}
