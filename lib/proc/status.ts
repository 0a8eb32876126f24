/**
 * `/proc/PID/status` and `/proc/PID/task/TID/status` (proc_pid_status(5);
 * proc_pid_status in fs/proc/array.c). Lines that came with a later kernel, or
 * that the kernel leaves out for tasks without memory, are optional here:
 * undefined means that there was no such line.
 */
import { unescapeTaskName } from "./escape.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimal, hexBigint, octal } from "./numbers.ts";

/** Real, effective, saved and file-system id. */
export type FourIds = readonly [
  real: number,
  effective: number,
  saved: number,
  fs: number,
];

/** What decides something; of the other lines only the form is looked at. */
export interface Status {
  readonly name: string;
  /** Absent in zombies and kernels before 4.7. */
  readonly umask: number | undefined;
  readonly tgid: number;
  /** 0 when nothing traces the task. */
  readonly tracerPid: number;
  readonly uid: FourIds;
  readonly gid: FourIds;
  /** Supplementary groups, in the kernel's order (ascending). */
  readonly groups: readonly number[];
  /**
   * The ids from the pid namespace of the reader's /proc inwards; the last is
   * the id the task itself sees. Absent in kernels without pid namespaces.
   */
  readonly nsPid: readonly number[] | undefined;
  /**
   * Bytes locked by mlock(2) and the like; absent when the task has no memory:
   * zombies, kernel threads.
   */
  readonly vmLocked: number | undefined;
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
  /** Such as "shstk", "wrss"; since 6.6, on processors that can. */
  readonly x86ThreadFeatures: readonly string[] | undefined;
}

/** {@link Status.vmLocked} alone. */
export function parseVmLocked(
  text: string,
  source = "status",
): number | undefined {
  const found = /^VmLck:\s*(.*)$/m.exec(text);
  return found === null
    ? undefined
    : kilobytes({ source, line: 1, text: found[1] });
}

/** Every process and thread has some 60 lines, most of which decide nothing. */
const READ: ReadonlySet<string> = new Set([
  "Name",
  "Umask",
  "Tgid",
  "TracerPid",
  "Uid",
  "Gid",
  "Groups",
  "NSpid",
  "VmLck",
  "SigPnd",
  "ShdPnd",
  "SigBlk",
  "SigIgn",
  "SigCgt",
  "CapInh",
  "CapPrm",
  "CapEff",
  "CapBnd",
  "CapAmb",
  "NoNewPrivs",
  "Seccomp",
  "Seccomp_filters",
  "Speculation_Store_Bypass",
  "x86_Thread_features",
]);

/** Parses the whole of status. */
export function parseStatus(text: string, source = "status"): Status {
  const fields = new Map<string, Place>();
  let line = 0;
  for (let from = 0; from < text.length;) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    line++;
    const colon = text.indexOf(":", from);
    if (colon <= from || colon > to) {
      throw malformed(
        { source, line, text: text.slice(from, to) },
        "expected a name and a colon",
      );
    }
    const name = text.slice(from, colon);
    if (READ.has(name)) {
      // "Name:" ends with a tab that is no part of the name; the name itself
      // may end in white space.
      const value = text.slice(colon + 1, to);
      fields.set(name, {
        source,
        line,
        text: name === "Name" ? value.replace(/^\t/, "") : value.trim(),
      });
    }
    from = to + 1;
  }

  const required = (name: string): Place => {
    const place = fields.get(name);
    if (place === undefined) {
      throw malformed({ source, line, text: "" }, `there is no ${name}`);
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

  return {
    name: unescapeTaskName(required("Name").text),
    umask: optional("Umask", (place) => octal(place.text, place)),
    tgid: count(required("Tgid")),
    tracerPid: count(required("TracerPid")),
    uid: fourIds(required("Uid")),
    gid: fourIds(required("Gid")),
    groups: counts(required("Groups")),
    nsPid: optional("NSpid", counts),
    vmLocked: optional("VmLck", kilobytes),
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
    x86ThreadFeatures: optional("x86_Thread_features", words),
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

function kilobytes(place: Place): number {
  if (!place.text.endsWith(" kB")) {
    throw malformed(place, "expected a size in kB");
  }
  return decimal(place.text.slice(0, -3), place) * 1024;
}
