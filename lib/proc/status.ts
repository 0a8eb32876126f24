/**
 * `/proc/PID/status` and `/proc/PID/task/TID/status` (proc_pid_status(5);
 * proc_pid_status in fs/proc/array.c). Lines that came with a later kernel, or
 * that the kernel leaves out for tasks without memory, are optional here:
 * undefined means that there was no such line.
 */
import { unescapeTaskName } from "./escape.ts";
import { lines } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimal, decimalBigint, hexBigint, octal } from "./numbers.ts";

/** Real, effective, saved and file-system id. */
export type FourIds = readonly [
  real: number,
  effective: number,
  saved: number,
  fs: number,
];

export interface Status {
  readonly name: string;
  /** Absent in zombies and kernels before 4.7. */
  readonly umask: number | undefined;
  /** One letter: R, S, D, T, t, Z, X, I, P. */
  readonly state: string;
  readonly tgid: number;
  /** Absent in kernels without NUMA balancing. */
  readonly ngid: number | undefined;
  /** The id of this very task: the thread id. */
  readonly pid: number;
  readonly ppid: number;
  /** 0 when nothing traces the task. */
  readonly tracerPid: number;
  readonly uid: FourIds;
  readonly gid: FourIds;
  readonly fdSize: number;
  /** Supplementary groups, in the kernel's order (ascending). */
  readonly groups: readonly number[];
  /**
   * The ids from the pid namespace of the reader's /proc inwards; the last is
   * the id the task itself sees. Absent in kernels without pid namespaces.
   */
  readonly nsTgid: readonly number[] | undefined;
  readonly nsPid: readonly number[] | undefined;
  readonly nsPgid: readonly number[] | undefined;
  readonly nsSid: readonly number[] | undefined;
  /** Kernel thread; since 6.8. */
  readonly kthread: boolean | undefined;
  /** Bytes; absent when the task has no memory: zombies, kernel threads. */
  readonly vmSize: number | undefined;
  readonly vmRss: number | undefined;
  readonly vmSwap: number | undefined;
  /** Bytes locked by mlock(2) and the like. */
  readonly vmLocked: number | undefined;
  /** A core dump is being written. */
  readonly coreDumping: boolean | undefined;
  /** False after PR_SET_THP_DISABLE; since 5.0. */
  readonly thpEnabled: boolean | undefined;
  readonly threads: number;
  /** Queued signals of the real user, and the limit of that. */
  readonly sigQueued: bigint;
  readonly sigQueueLimit: bigint;
  /** Signal masks: bit n is signal n + 1. */
  readonly sigPnd: bigint;
  readonly shdPnd: bigint;
  readonly sigBlk: bigint;
  readonly sigIgn: bigint;
  readonly sigCgt: bigint;
  /** Capability masks: bit n is capability n. */
  readonly capInh: bigint;
  readonly capPrm: bigint;
  readonly capEff: bigint;
  readonly capBnd: bigint;
  /** Since 4.3. */
  readonly capAmb: bigint | undefined;
  /** Since 4.10. */
  readonly noNewPrivs: boolean | undefined;
  /** SECCOMP_MODE_*: 0 disabled, 1 strict, 2 filter. */
  readonly seccomp: number | undefined;
  /** Number of filters; since 5.9. */
  readonly seccompFilters: number | undefined;
  /** As the kernel words it: "thread vulnerable", "globally mitigated". */
  readonly speculationStoreBypass: string | undefined;
  readonly speculationIndirectBranch: string | undefined;
  /** "0-3,8" */
  readonly cpusAllowedList: string | undefined;
  readonly memsAllowedList: string | undefined;
  /** Such as "shstk", "wrss"; since 6.6, on processors that can. */
  readonly x86ThreadFeatures: readonly string[] | undefined;
  readonly x86ThreadFeaturesLocked: readonly string[] | undefined;
}

/** Parses the whole of status. */
export function parseStatus(text: string, source = "status"): Status {
  const fields = new Map<string, Place>();
  let last = 0;
  for (const place of lines(text, source)) {
    last = place.line;
    const colon = place.text.indexOf(":");
    if (colon <= 0) throw malformed(place, "expected a name and a colon");
    const name = place.text.slice(0, colon);
    // "Name:" ends with a tab that is no part of the name; the name itself
    // may end in white space.
    const value = place.text.slice(colon + 1);
    fields.set(name, {
      source,
      line: place.line,
      text: name === "Name" ? value.replace(/^\t/, "") : value.trim(),
    });
  }

  const required = (name: string): Place => {
    const place = fields.get(name);
    if (place === undefined) {
      throw malformed({ source, line: last, text: "" }, `there is no ${name}`);
    }
    return place;
  };
  const optional = <T>(
    name: string,
    parse: (place: Place) => T,
  ): T | undefined => {
    const place = fields.get(name);
    return place === undefined ? undefined : parse(place);
  };

  const queue = required("SigQ");
  const slash = queue.text.indexOf("/");
  if (slash < 0) throw malformed(queue, "expected SigQ as QUEUED/LIMIT");

  return {
    name: unescapeTaskName(required("Name").text),
    umask: optional("Umask", (place) => octal(place.text, place)),
    state: stateLetter(required("State")),
    tgid: count(required("Tgid")),
    ngid: optional("Ngid", count),
    pid: count(required("Pid")),
    ppid: count(required("PPid")),
    tracerPid: count(required("TracerPid")),
    uid: fourIds(required("Uid")),
    gid: fourIds(required("Gid")),
    fdSize: count(required("FDSize")),
    groups: counts(required("Groups")),
    nsTgid: optional("NStgid", counts),
    nsPid: optional("NSpid", counts),
    nsPgid: optional("NSpgid", counts),
    nsSid: optional("NSsid", counts),
    kthread: optional("Kthread", zeroOrOne),
    vmSize: optional("VmSize", kilobytes),
    vmRss: optional("VmRSS", kilobytes),
    vmSwap: optional("VmSwap", kilobytes),
    vmLocked: optional("VmLck", kilobytes),
    coreDumping: optional("CoreDumping", zeroOrOne),
    thpEnabled: optional("THP_enabled", zeroOrOne),
    threads: count(required("Threads")),
    sigQueued: decimalBigint(queue.text.slice(0, slash), queue),
    sigQueueLimit: decimalBigint(queue.text.slice(slash + 1), queue),
    sigPnd: mask(required("SigPnd")),
    shdPnd: mask(required("ShdPnd")),
    sigBlk: mask(required("SigBlk")),
    sigIgn: mask(required("SigIgn")),
    sigCgt: mask(required("SigCgt")),
    capInh: mask(required("CapInh")),
    capPrm: mask(required("CapPrm")),
    capEff: mask(required("CapEff")),
    capBnd: mask(required("CapBnd")),
    capAmb: optional("CapAmb", mask),
    noNewPrivs: optional("NoNewPrivs", zeroOrOne),
    seccomp: optional("Seccomp", count),
    seccompFilters: optional("Seccomp_filters", count),
    speculationStoreBypass: optional("Speculation_Store_Bypass", asText),
    speculationIndirectBranch: optional("SpeculationIndirectBranch", asText),
    cpusAllowedList: optional("Cpus_allowed_list", asText),
    memsAllowedList: optional("Mems_allowed_list", asText),
    x86ThreadFeatures: optional("x86_Thread_features", words),
    x86ThreadFeaturesLocked: optional("x86_Thread_features_locked", words),
  };
}

function asText(place: Place): string {
  return place.text;
}

function words(place: Place): string[] {
  return place.text === "" ? [] : place.text.split(/\s+/);
}

function count(place: Place): number {
  return decimal(place.text, place);
}

function counts(place: Place): number[] {
  return words(place).map((word) => decimal(word, place));
}

function mask(place: Place): bigint {
  return hexBigint(place.text, place);
}

function zeroOrOne(place: Place): boolean {
  if (place.text !== "0" && place.text !== "1") {
    throw malformed(place, "expected 0 or 1");
  }
  return place.text === "1";
}

function fourIds(place: Place): FourIds {
  const [real, effective, saved, fs, ...more] = counts(place);
  if (fs === undefined || more.length > 0) {
    throw malformed(place, "expected four ids");
  }
  return [real, effective, saved, fs];
}

function stateLetter(place: Place): string {
  if (!/^[A-Za-z] \(/.test(place.text)) {
    throw malformed(place, "expected a state such as S (sleeping)");
  }
  return place.text[0];
}

function kilobytes(place: Place): number {
  if (!place.text.endsWith(" kB")) {
    throw malformed(place, "expected a size in kB");
  }
  return decimal(place.text.slice(0, -3), place) * 1024;
}
