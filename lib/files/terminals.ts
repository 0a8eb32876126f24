/**
 * The pseudo terminals of a tree, all that belongs to them: whose master is in
 * the tree, what speaks against saving one.
 */
import type { Reason } from "../error.ts";
import type { FileStatus } from "../ffi/syscall.ts";
import type { DescriptorPlace } from "./description_index.ts";
import type { PipeIdentity } from "./outside_holders.ts";
import {
  isHostMaster,
  type MasterState,
  type SeenTerminal,
  slavePath,
} from "./terminal.ts";

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

/** Masters in the tree, by the numbers of their terminals. */
export function mastersAmong(
  processes: readonly Pick<TerminalUser, "descriptors">[],
): ReadonlyMap<number, MasterState> {
  const masters = new Map<number, MasterState>();
  for (const { descriptors } of processes) {
    for (const { terminal, link } of descriptors) {
      if (terminal?.master === undefined || !isHostMaster(link)) continue;
      masters.set(terminal.index!, terminal.master);
    }
  }
  return masters;
}

/** What the outside may have of them: masters, and slaves by their paths. */
export function terminalsAmong(
  processes: readonly TerminalUser[],
): PipeIdentity[] {
  const masters = mastersAmong(processes);
  if (masters.size === 0) return [];
  return processes.flatMap(({ pid, tid = pid, descriptors }) =>
    descriptors.flatMap(({ fd, link, status, terminal, sameAs }) =>
      terminal === undefined || sameAs !== undefined
        ? []
        : terminal.end === "master"
        ? [{ link, status, description: { pid: tid, fd } }]
        : masters.has(terminal.index ?? -1)
        ? [{ link, status }]
        : []
    )
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

/** Whether the terminal that controls a process is one of the tree. */
export function isControlledByOwn(
  ttyNr: number,
  masters: ReadonlyMap<number, MasterState>,
): boolean {
  return masters.has(controlled(ttyNr) ?? -1);
}

/** Controlling terminals that cannot be given to those who have them. */
export function controllingProblems(
  processes: readonly TerminalUser[],
  masters: ReadonlyMap<number, MasterState>,
): Reason[] {
  const living = new Set(processes.map(({ pid }) => pid));
  const bySession = new Map<number, number>();
  const reasons: Reason[] = [];
  for (const [index, { session }] of masters) {
    if (session === 0) continue;
    bySession.set(session, index);
    if (living.has(session)) continue;
    reasons.push({
      object: `the terminal ${slavePath(index)}`,
      why: `it controls session ${session}, whose leader is not part of what ` +
        "is dumped",
    });
  }
  for (const { pid, stat: { session, ttyNr } } of processes) {
    const index = bySession.get(session);
    if (index === undefined || controlled(ttyNr) === index) continue;
    reasons.push({
      object: `task ${pid}`,
      why: `it has no controlling terminal, but its session has ${
        slavePath(index)
      }; that is not supported yet`,
    });
  }
  return reasons;
}

/** Bytes in terminals of the tree that nobody has read yet. */
export function unreadTerminals(
  processes: readonly TerminalUser[],
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
            "has read yet, which is not supported",
          remedy: "dump again when the program has read them",
        }]
    )
  );
}
