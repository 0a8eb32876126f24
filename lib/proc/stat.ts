/**
 * `/proc/PID/stat` and `/proc/PID/task/TID/stat` (proc_pid_stat(5);
 * do_task_stat in fs/proc/array.c).
 *
 * The kernel hides the addresses and the exit code from a reader that may not
 * ptrace the task: startCode and endCode are then 1, the others 0. A task
 * without memory has 0 everywhere.
 */
import { malformed, type Place } from "./malformed.ts";
import { decimal, signedDecimal } from "./numbers.ts";

/** What decides something, or is saved. */
export interface Stat {
  readonly pid: number;
  /** Not escaped: may hold spaces, parentheses and newlines. */
  readonly comm: string;
  readonly state: string;
  readonly ppid: number;
  readonly pgrp: number;
  readonly session: number;
  /** Device number of the controlling terminal, 0 for none. */
  readonly ttyNr: number;
  /** PF_* bits of the kernel's include/linux/sched.h. */
  readonly flags: number;
  readonly nice: number;
  /** Of the process, also those that have ended and were not taken yet. */
  readonly numThreads: number;
  /** Pages; inaccurate (see the manual page). */
  readonly rss: number;
  readonly startCode: number;
  readonly endCode: number;
  readonly startStack: number;
  readonly kstkeip: number;
  /** The signal for the parent when the task ends; -1 in threads. */
  readonly exitSignal: number;
  readonly rtPriority: number;
  /** SCHED_*. */
  readonly policy: number;
  readonly startData: number;
  readonly endData: number;
  readonly startBrk: number;
  readonly argStart: number;
  readonly argEnd: number;
  readonly envStart: number;
  readonly envEnd: number;
  /** As waitpid(2) reports it. */
  readonly exitCode: number;
}

/** Fields after the name; later kernels may append more, which are ignored. */
const FIELDS_AFTER_COMM = 50;

/** Parses the whole of stat. */
export function parseStat(text: string, source = "stat"): Stat {
  const place: Place = { source, line: 1, text };
  const open = text.indexOf(" (");
  // Whatever the name holds, only digits follow the last parenthesis.
  const close = text.lastIndexOf(") ");
  if (open < 0 || close < open + 2) {
    throw malformed(place, "expected a pid and a name in parentheses");
  }
  const fields = text.slice(close + 2).trimEnd().split(" ");
  if (fields.length < FIELDS_AFTER_COMM) {
    throw malformed(
      place,
      `expected ${FIELDS_AFTER_COMM} fields after the name, ` +
        `found ${fields.length}`,
    );
  }
  if (!/^[A-Za-z]$/.test(fields[0])) {
    throw malformed(place, "expected a state of one letter");
  }

  // Numbered as in the manual page, where the state is field 3.
  const unsigned = (number: number) => decimal(fields[number - 3], place);
  const signed = (number: number) => signedDecimal(fields[number - 3], place);

  return {
    pid: decimal(text.slice(0, open), place),
    comm: text.slice(open + 2, close),
    state: fields[0],
    ppid: unsigned(4),
    pgrp: signed(5),
    session: signed(6),
    ttyNr: signed(7),
    flags: unsigned(9),
    nice: signed(19),
    numThreads: unsigned(20),
    rss: signed(24),
    startCode: unsigned(26),
    endCode: unsigned(27),
    startStack: unsigned(28),
    kstkeip: unsigned(30),
    exitSignal: signed(38),
    rtPriority: unsigned(40),
    policy: unsigned(41),
    startData: unsigned(45),
    endData: unsigned(46),
    startBrk: unsigned(47),
    argStart: unsigned(48),
    argEnd: unsigned(49),
    envStart: unsigned(50),
    envEnd: unsigned(51),
    exitCode: signed(52),
  };
}
