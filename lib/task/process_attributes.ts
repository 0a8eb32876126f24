/**
 * What belongs to a whole process and fits in no other file: prctl(2) modes,
 * personality, umask, membarrier registrations, and the files of /proc/self
 * that can be written.
 */
import type { Reason } from "../error.ts";
import type { Argument, Outcome, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import type {
  ckpt_task_entry,
  mm_entry,
  task_core_entry,
} from "../image/schema.gen.ts";
import { LOGINUID_UNSET } from "../proc/single_value.ts";

const PR_GET_DUMPABLE = 3;
const PR_SET_DUMPABLE = 4;
const PR_SET_CHILD_SUBREAPER = 36;
const PR_GET_CHILD_SUBREAPER = 37;
const PR_SET_THP_DISABLE = 41;
const PR_GET_THP_DISABLE = 42;
const PR_SET_MDWE = 65;
const PR_GET_MDWE = 66;
const PR_SET_MEMORY_MERGE = 67;
const PR_GET_MEMORY_MERGE = 68;
const ARCH_GET_XCOMP_PERM = 0x1022;
const ARCH_REQ_XCOMP_PERM = 0x1023;

const MEMBARRIER_CMD_QUERY = 0;
/** Since Linux 6.3. */
const MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9;
/** The commands that register: global, private, private sync-core and rseq. */
const MEMBARRIER_REGISTER = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;

/** Only tile data (AMX) is not permitted from the start. */
const XFEATURE_XTILE_DATA = 18n;
const DYNAMIC_FEATURES = 1n << XFEATURE_XTILE_DATA;

/** MMF_DUMP_FILTER_DEFAULT (Documentation/filesystems/proc.rst). */
const DEFAULT_COREDUMP_FILTER = 0x33;

/** What a process told about itself. */
export interface ProcessAnswers {
  /** PR_GET_DUMPABLE: 0, 1 or 2. */
  readonly dumpable: number;
  readonly childSubreaper: boolean;
  /** PR_GET_THP_DISABLE: bit 0 "disabled", above it flags of Linux 6.18. */
  readonly thpDisable: number;
  /** The commands that registered it for membarrier(2). */
  readonly membarrier: number;
  /** PR_GET_MDWE. */
  readonly mdwe: number;
  readonly memoryMerge: boolean;
  /** ARCH_GET_XCOMP_PERM; 0n where the processor has no such thing. */
  readonly xcompPermissions: bigint;
}

/** Asks what only the process itself can tell. Runs in any of its threads. */
export function askProcess(
  program: Program,
): (outcome: Outcome) => ProcessAnswers {
  const subreaper = program.reserve(4);
  const permissions = program.reserve(8);
  const optional = { mayFail: true };
  const dumpable = program.call(
    "prctl",
    [PR_GET_DUMPABLE],
    "reading whether it is dumpable",
  );
  program.call(
    "prctl",
    [PR_GET_CHILD_SUBREAPER, subreaper],
    "reading whether it is a child subreaper",
  );
  const thp = program.call(
    "prctl",
    [PR_GET_THP_DISABLE, 0, 0, 0, 0],
    "reading whether huge pages are disabled",
  );
  const registered = program.call(
    "membarrier",
    [MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0],
    "reading the membarrier registrations",
    optional,
  );
  const supported = program.call(
    "membarrier",
    [MEMBARRIER_CMD_QUERY, 0, 0],
    "reading the membarrier commands",
    optional,
  );
  const mdwe = program.call(
    "prctl",
    [PR_GET_MDWE, 0, 0, 0, 0],
    "reading whether writable memory may become executable",
    optional,
  );
  const merge = program.call(
    "prctl",
    [PR_GET_MEMORY_MERGE, 0, 0, 0, 0],
    "reading whether equal pages are merged",
    optional,
  );
  const xcomp = program.call(
    "arch_prctl",
    [ARCH_GET_XCOMP_PERM, permissions],
    "reading the permitted register sets",
    optional,
  );
  return (outcome) => {
    const known = Number(outcome.result(registered));
    // A kernel that does not tell: registering for everything does no harm,
    // not being registered would.
    const possible = Number(outcome.result(supported)) & MEMBARRIER_REGISTER;
    return {
      dumpable: Number(outcome.result(dumpable)),
      childSubreaper: outcome.data(subreaper).getInt32(0, true) !== 0,
      thpDisable: Number(outcome.result(thp)),
      membarrier: known >= 0
        ? known
        : outcome.result(supported) > 0n
        ? possible
        : 0,
      mdwe: Math.max(Number(outcome.result(mdwe)), 0),
      memoryMerge: outcome.result(merge) === 1n,
      xcompPermissions: outcome.result(xcomp) === 0n
        ? outcome.data(permissions).getBigUint64(0, true)
        : 0n,
    };
  };
}

/** What is read of a process from the outside. */
export interface ProcessReadings {
  personality: number;
  oomScoreAdj: number;
  /** undefined: the kernel has no auditing. */
  loginuid: number | undefined;
  /** undefined: the kernel writes no core files. */
  coredumpFilter: number | undefined;
}

/** /proc/PID/coredump_filter: a hexadecimal mask. */
export function parseCoredumpFilter(text: string): number {
  return Number.parseInt(text, 16);
}

/** What CRIU's format has no field for. */
export type ProcessExtension = Pick<
  ckpt_task_entry,
  | "personality"
  | "coredump_filter"
  | "thp_disable_flags"
  | "mdwe"
  | "memory_merge"
  | "xcomp_permissions"
>;

/** The fields of three messages. */
export interface DumpedProcess {
  task: Pick<
    task_core_entry,
    | "personality"
    | "oom_score_adj"
    | "loginuid"
    | "child_subreaper"
    | "membarrier_registration_mask"
  >;
  mm: Pick<mm_entry, "dumpable" | "thp_disabled">;
  /** Only what is not the default. */
  extension: Omit<ckpt_task_entry, "threads" | "areas" | "cgroups">;
}

export function dumpProcess(
  answers: ProcessAnswers,
  readings: ProcessReadings,
): DumpedProcess {
  const { personality, oomScoreAdj, loginuid, coredumpFilter } = readings;
  const extension: ProcessExtension = {};
  if (personality !== 0) extension.personality = personality;
  if (
    coredumpFilter !== undefined && coredumpFilter !== DEFAULT_COREDUMP_FILTER
  ) {
    extension.coredump_filter = coredumpFilter;
  }
  if (answers.thpDisable > 1) {
    extension.thp_disable_flags = answers.thpDisable & ~1;
  }
  if (answers.mdwe !== 0) extension.mdwe = answers.mdwe;
  if (answers.memoryMerge) extension.memory_merge = true;
  const dynamic = answers.xcompPermissions & DYNAMIC_FEATURES;
  if (dynamic !== 0n) extension.xcomp_permissions = dynamic;
  return {
    task: {
      personality,
      oom_score_adj: oomScoreAdj === 0 ? undefined : oomScoreAdj,
      loginuid: loginuid === LOGINUID_UNSET ? undefined : loginuid,
      child_subreaper: answers.childSubreaper,
      membarrier_registration_mask: answers.membarrier === 0
        ? undefined
        : answers.membarrier,
    },
    mm: {
      dumpable: answers.dumpable,
      thp_disabled: (answers.thpDisable & 1) !== 0,
    },
    extension,
  };
}

/**
 * What of an image the kernel would not accept.
 *
 * @param current what ckpt itself has, and so a new agent
 * @param object "core-12.img, entry 0"
 */
export function processProblems(
  { oom_score_adj = 0 }: task_core_entry,
  current: Pick<ProcessReadings, "oomScoreAdj">,
  hasSysResource: boolean,
  object: string,
): Reason[] {
  if (oom_score_adj < -1000 || oom_score_adj > 1000) {
    return [{
      object: `${object}, field tc.oom_score_adj`,
      why: `${oom_score_adj} is not from -1000 to 1000`,
      remedy: "dump the program again; the image is damaged",
    }];
  }
  if (oom_score_adj >= current.oomScoreAdj || hasSysResource) return [];
  return [{
    object: `oom_score_adj ${oom_score_adj}`,
    why: `here it is ${current.oomScoreAdj}, and lowering it takes ` +
      "CAP_SYS_RESOURCE",
    remedy: "give ckpt CAP_SYS_RESOURCE, or start it with that value " +
      "(choom(1))",
  }];
}

/**
 * Sets everything but the dumpable state. Runs in the leader, as root, after
 * the last mapping is made: the personality can make readable memory
 * executable, and MDWE forbids some changes of memory for good.
 *
 * @param current what ckpt itself has, and so a new agent
 * @param self where /proc/self is found: a descriptor of a directory that holds
 * it (a proc file system), or AT_FDCWD for /proc itself
 */
export function restoreProcess(
  program: Program,
  { task, mm, extension, umask }: {
    task: task_core_entry;
    mm: mm_entry;
    extension: ProcessExtension | undefined;
    /** fs_entry.umask; undefined: left as it is. */
    umask: number | undefined;
  },
  current: ProcessReadings,
  self: Argument = AT_FDCWD,
): void {
  if (umask !== undefined) program.call("umask", [umask], "setting the umask");
  if (task.child_subreaper) {
    program.call(
      "prctl",
      [PR_SET_CHILD_SUBREAPER, 1],
      "making the process a child subreaper",
    );
  }
  const thp = mm.thp_disabled ? 1 : 0;
  program.call(
    "prctl",
    [PR_SET_THP_DISABLE, thp, extension?.thp_disable_flags ?? 0, 0, 0],
    `${thp ? "disabling" : "enabling"} huge pages`,
  );
  const registrations = task.membarrier_registration_mask ?? 0;
  for (let bit = 0; bit < 31; bit++) {
    if ((registrations >> bit & 1) === 0) continue;
    program.call(
      "membarrier",
      [1 << bit, 0, 0],
      `registering for membarrier, command ${1 << bit}`,
    );
  }
  if (((extension?.xcomp_permissions ?? 0n) & DYNAMIC_FEATURES) !== 0n) {
    program.call(
      "arch_prctl",
      [ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA],
      "asking for the tile registers",
    );
  }
  if (extension?.memory_merge) {
    program.call(
      "prctl",
      [PR_SET_MEMORY_MERGE, 1, 0, 0, 0],
      "allowing equal pages to be merged",
    );
  }

  const oomScoreAdj = task.oom_score_adj ?? 0;
  if (oomScoreAdj !== current.oomScoreAdj) {
    writeProc(program, self, "oom_score_adj", `${oomScoreAdj}`);
  }
  const filter = extension?.coredump_filter ?? DEFAULT_COREDUMP_FILTER;
  if (
    current.coredumpFilter !== undefined && filter !== current.coredumpFilter
  ) {
    writeProc(program, self, "coredump_filter", `0x${filter.toString(16)}`);
  }

  restoreInherited(program, { task, extension }, current, self);
  if (extension?.mdwe !== undefined) {
    program.call(
      "prctl",
      [PR_SET_MDWE, extension.mdwe, 0, 0, 0],
      "forbidding writable memory to become executable",
    );
  }
}

/**
 * What every thread has for itself, but gets from the one that clones it: part
 * of {@link restoreProcess}, and for threads that were cloned before that.
 */
export function restoreInherited(
  program: Program,
  { task, extension }: {
    task: task_core_entry;
    extension: ProcessExtension | undefined;
  },
  current: ProcessReadings,
  self: Argument = AT_FDCWD,
): void {
  const { loginuid = LOGINUID_UNSET } = task;
  if (loginuid !== LOGINUID_UNSET && loginuid !== current.loginuid) {
    writeProc(program, self, "loginuid", `${loginuid}`, "thread-self");
  }
  const personality = extension?.personality ?? task.personality;
  program.call(
    "personality",
    [personality],
    `setting the personality 0x${personality.toString(16)}`,
  );
}

/**
 * Sets whether the process is dumpable. Has to come after the credentials, a
 * change of which resets it. The value 2 (readable by root only) can be set by
 * the kernel alone, so 0, the stricter one, takes its place.
 *
 * @param dumpable mm_entry.dumpable; undefined: left as it is
 */
export function restoreDumpable(
  program: Program,
  dumpable: number | undefined,
): void {
  if (dumpable === undefined) return;
  program.call(
    "prctl",
    [PR_SET_DUMPABLE, dumpable === 1 ? 1 : 0],
    "setting whether the process is dumpable",
  );
}

const encoder = new TextEncoder();

function writeProc(
  program: Program,
  self: Argument,
  file: string,
  text: string,
  whose: "self" | "thread-self" = "self",
): void {
  const path = `${self === AT_FDCWD ? "/proc/" : ""}${whose}/${file}`;
  const bytes = encoder.encode(text);
  const fd = program.call(
    "openat",
    [self, program.text(path), O.WRONLY | O.CLOEXEC, 0],
    `opening ${path}`,
  );
  program.call(
    "write",
    [fd, program.bytes(bytes), bytes.length],
    `writing ${text} to ${path}`,
  );
  program.call("close", [fd], `closing ${path}`);
}
