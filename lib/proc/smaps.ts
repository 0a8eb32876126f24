/**
 * `/proc/PID/smaps` (proc_pid_smaps(5); show_smap in fs/proc/task_mmu.c).
 * Of the many counters only those are kept that decide something.
 */
import { malformed } from "./malformed.ts";
import { type Mapping, parseMapping } from "./maps.ts";

export interface SmapsMapping extends Mapping {
  /** Bytes in memory. */
  readonly rss: number;
  /** Bytes of anonymous memory in swap. */
  readonly swap: number;
  /** 4096, or the size of a huge page in hugetlbfs mappings. */
  readonly kernelPageSize: number;
  /** Memory protection key; undefined where the processor has none. */
  readonly protectionKey: number | undefined;
  /**
   * The two-letter codes of VmFlags: "rd", "mr", "lo", "dc", ... Mappings
   * with the same flags share one set.
   */
  readonly vmFlags: ReadonlySet<string>;
}

/** Parses the whole of smaps; an empty text (no memory) gives no mappings. */
export function parseSmaps(text: string, source = "smaps"): SmapsMapping[] {
  const mappings: SmapsMapping[] = [];
  const flagSets = new Map<string, ReadonlySet<string>>();
  let mapping: Mapping | undefined;
  let mappingLine = 0;
  let rss = -1;
  let swap = 0;
  let kernelPageSize = -1;
  let protectionKey: number | undefined;
  let from = 0;
  let line = 1;
  const place = (to: number) => ({ source, line, text: text.slice(from, to) });

  for (; from < text.length; line++) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    if (mapping === undefined) {
      mapping = parseMapping(text, from, to, source, line);
      mappingLine = line;
      rss = -1;
      swap = 0;
      kernelPageSize = -1;
      protectionKey = undefined;
      from = to + 1;
      continue;
    }
    switch (text.charCodeAt(from)) {
      case LETTER_R:
        if (text.startsWith("Rss:", from)) {
          rss = kilobytes(text, from + 4, to);
          if (rss < 0) throw malformed(place(to), NOT_KILOBYTES);
        }
        break;
      case LETTER_S:
        if (text.startsWith("Swap:", from)) {
          swap = kilobytes(text, from + 5, to);
          if (swap < 0) throw malformed(place(to), NOT_KILOBYTES);
        }
        break;
      case LETTER_K:
        if (text.startsWith("KernelPageSize:", from)) {
          kernelPageSize = kilobytes(text, from + 15, to);
          if (kernelPageSize <= 0) throw malformed(place(to), NOT_KILOBYTES);
        }
        break;
      case LETTER_P:
        if (text.startsWith("ProtectionKey:", from)) {
          const key = text.slice(from + 14, to).trim();
          if (!/^[0-9]{1,3}$/.test(key)) {
            throw malformed(place(to), "expected a protection key");
          }
          protectionKey = Number(key);
        }
        break;
      case LETTER_V:
        // The last line of every record.
        if (text.startsWith("VmFlags:", from)) {
          if (rss < 0 || kernelPageSize < 0) {
            throw malformed(
              place(to),
              `the record of line ${mappingLine} has no ` +
                (rss < 0 ? "Rss" : "KernelPageSize"),
            );
          }
          const flagText = text.slice(from + 8, to);
          let vmFlags = flagSets.get(flagText);
          if (vmFlags === undefined) {
            const flags = flagText.split(" ").filter((flag) => flag !== "");
            if (flags.some((flag) => flag.length !== 2)) {
              throw malformed(place(to), "expected flags of two letters");
            }
            vmFlags = new Set(flags);
            flagSets.set(flagText, vmFlags);
          }
          mappings.push({
            start: mapping.start,
            end: mapping.end,
            prot: mapping.prot,
            shared: mapping.shared,
            offset: mapping.offset,
            major: mapping.major,
            minor: mapping.minor,
            inode: mapping.inode,
            path: mapping.path,
            deletedMark: mapping.deletedMark,
            rss,
            swap,
            kernelPageSize,
            protectionKey,
            vmFlags,
          });
          mapping = undefined;
        }
        break;
      default:
        if (!isCapital(text.charCodeAt(from))) {
          throw malformed(
            place(to),
            `the record of line ${mappingLine} has no VmFlags before this line`,
          );
        }
    }
    from = to + 1;
  }
  if (mapping !== undefined) {
    throw malformed(
      { source, line, text: "" },
      `the text ends within the record of line ${mappingLine}`,
    );
  }
  return mappings;
}

const NOT_KILOBYTES = "expected a size in kB";

const SPACE = 32;
const LETTER_K = 75;
const LETTER_P = 80;
const LETTER_R = 82;
const LETTER_S = 83;
const LETTER_V = 86;

function isCapital(code: number): boolean {
  return code >= 65 && code <= 90;
}

/** Reads `       12 kB`; bytes, or -1 when the text is something else. */
function kilobytes(text: string, from: number, to: number): number {
  let at = from;
  while (at < to && text.charCodeAt(at) === SPACE) at++;
  const digits = at;
  let value = 0;
  for (; at < to; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  const complete = at > digits && at + 3 === to && text.startsWith(" kB", at);
  return complete && value <= Number.MAX_SAFE_INTEGER / 1024
    ? value * 1024
    : -1;
}
