/**
 * The pseudo terminals of a tree, all that belongs to them: whose master is in
 * the tree, what speaks against saving one.
 */
import type { Reason } from "../error.ts";
import type { FileStatus } from "../ffi/syscall.ts";
import type { DescriptorPlace } from "./description_index.ts";
import type { PipeIdentity } from "./outside_holders.ts";
import { sorted } from "./sorted_descriptors.ts";
import type { MasterState, SeenTerminal } from "./terminal.ts";

/** A descriptor as far as terminals go. */
interface SeenEnd {
  readonly fd: number;
  readonly link: string;
  readonly status: FileStatus;
  readonly terminal?: SeenTerminal | undefined;
  /** Of a description that was seen before. */
  readonly sameAs: DescriptorPlace | undefined;
}

/** A process as far as terminals go. */
export interface TerminalUser {
  readonly pid: number;
  /** The thread by which it was looked at, where that is another. */
  readonly tid?: number;
  readonly stat: { readonly session: number; readonly ttyNr: number };
  readonly descriptors: readonly SeenEnd[];
}

/** A master in the tree, and where it is open. */
export interface SeenMaster {
  readonly index: number;
  readonly state: MasterState;
  readonly place: DescriptorPlace;
  /** Whether a slave is open in the tree, or was once. */
  readonly hadSlave: boolean;
}

/** Each once; of two with one number, the other is refused. */
export function seenMasters(
  processes: readonly Omit<TerminalUser, "stat">[],
): SeenMaster[] {
  const masters = new Map<number, SeenMaster>();
  const slaves = new Set<number>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, terminal } of sorted(descriptors).devices) {
      const { index, end, master: state } = terminal ?? {};
      if (index === undefined) continue;
      if (state === undefined) {
        if (end === "slave") slaves.add(index);
        continue;
      }
      if (masters.has(index)) continue;
      const place = { pid: tid, fd };
      masters.set(index, { index, state, place, hadSlave: state.isHungUp });
    }
  }
  return [...masters.values()].map((master) => ({
    ...master,
    hadSlave: master.hadSlave || slaves.has(master.index),
  }));
}

/** What masters tell, by the numbers of their terminals. */
export function mastersAmong(
  processes: readonly Omit<TerminalUser, "stat">[],
): ReadonlyMap<number, MasterState> {
  return new Map(
    seenMasters(processes).map(({ index, state }) => [index, state]),
  );
}

/** What the outside may have of them: masters, and slaves by their paths. */
export function terminalsAmong(
  processes: readonly TerminalUser[],
): PipeIdentity[] {
  return processes.flatMap(({ pid, tid = pid, descriptors }) =>
    sorted(descriptors).devices.flatMap(({ fd, link, status, terminal }) => {
      if (terminal?.master === undefined) return [];
      const { slave } = terminal.master;
      return [
        { link, status, description: { pid: tid, fd } },
        { link: slave.path, status: slave.status },
      ];
    })
  );
}

const SLAVE_MAJOR = 136;

/** tty_nr of a process (proc_pid_stat(5)) that a pseudo terminal controls. */
function controlled(ttyNr: number): number | undefined {
  const major = (ttyNr >> 8) & 0xfff;
  const minor = (ttyNr & 0xff) | ((ttyNr >>> 12) & 0xfff00);
  const index = (major - SLAVE_MAJOR) * 256 + minor;
  return major >= SLAVE_MAJOR && major < SLAVE_MAJOR + 8 ? index : undefined;
}

/** Controlling terminals that cannot be given to those who have them. */
export function controllingProblems(
  processes: readonly Pick<TerminalUser, "pid">[],
  masters: ReadonlyMap<number, MasterState>,
): Reason[] {
  const living = new Set(processes.map(({ pid }) => pid));
  return [...masters.values()].flatMap(({ session, slave }) =>
    session === 0 || living.has(session) ? [] : [{
      object: `the terminal ${slave.path}`,
      why: `it controls session ${session}, whose leader is not part of what ` +
        "is dumped",
    }]
  );
}

/**
 * Processes that do not have the terminal that controls their session, as they
 * were there before it, or gave it up; by its number.
 */
export function withoutTheirTerminal(
  processes: readonly Pick<TerminalUser, "pid" | "stat">[],
  masters: ReadonlyMap<number, MasterState>,
): ReadonlyMap<number, readonly number[]> {
  return new Map(
    [...masters].map(([index, { session }]) => [
      index,
      session === 0
        ? []
        : processes.flatMap(({ pid, stat }) =>
          stat.session === session && controlled(stat.ttyNr) !== index
            ? [pid]
            : []
        ),
    ]),
  );
}

/**
 * Bytes in terminals of the tree that nobody has read yet, where ckpt cannot
 * look into them.
 *
 * @param why it cannot
 */
export function unreadTerminals(
  processes: readonly TerminalUser[],
  why: string,
): Reason[] {
  const masters = mastersAmong(processes);
  return processes.flatMap(({ pid, descriptors }) =>
    descriptors.flatMap(({ fd, link, terminal }) =>
      terminal === undefined || terminal.unread === 0 ||
        !masters.has(terminal.index ?? -1)
        ? []
        : [{
          object: `descriptor ${fd} (${link}) of task ${pid}`,
          why: `it is a terminal with ${terminal.unread} bytes that nobody ` +
            `has read yet, which ckpt cannot look up in the kernel: ${why}`,
          remedy: "dump again when the program has read them",
        }]
    )
  );
}
