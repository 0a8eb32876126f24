/**
 * `/proc/PID/smaps` (proc_pid_smaps(5); show_smap in fs/proc/task_mmu.c).
 * Of the many counters only those are kept that decide something.
 */
import { malformed } from "./malformed.ts";
import { type Mapping, parseMapping } from "./maps.ts";

export interface SmapsMapping extends Mapping {
  /**
   * The two-letter codes of VmFlags: "rd", "mr", "lo", "dc", ... Mappings
   * with the same flags share one set.
   */
  readonly vmFlags: ReadonlySet<string>;
  /** Bytes of a page, where these are huge ones (flag "ht"). */
  readonly hugePageSize?: number;
}

/** Parses the whole of smaps; an empty text (no memory) gives no mappings. */
export function parseSmaps(text: string, source = "smaps"): SmapsMapping[] {
  const mappings: SmapsMapping[] = [];
  const flagSets = new Map<string, ReadonlySet<string>>();
  let mapping: Mapping | undefined;
  let mappingLine = 0;
  let record = 0;
  let from = 0;
  let line = 1;
  const place = (to: number) => ({ source, line, text: text.slice(from, to) });

  for (; from < text.length; line++) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    if (mapping === undefined) {
      mapping = parseMapping(text, from, to, source, line);
      mappingLine = line;
      record = to;
      from = to + 1;
      continue;
    }
    // The last line of every record.
    if (text.startsWith("VmFlags:", from)) {
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
        vmFlags,
        ...vmFlags.has("ht") &&
          { hugePageSize: pageSize(text.slice(record, from), place(to)) },
      });
      mapping = undefined;
    } else if (!isCapital(text.charCodeAt(from))) {
      throw malformed(
        place(to),
        `the record of line ${mappingLine} has no VmFlags before this line`,
      );
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

/** @param record of one mapping, without its VmFlags */
function pageSize(record: string, where: Parameters<typeof malformed>[0]) {
  const kilobytes = /\nKernelPageSize: +(\d+) kB\n/.exec(record)?.[1];
  if (kilobytes === undefined) {
    throw malformed(where, "the record has huge pages, but no KernelPageSize");
  }
  return Number(kilobytes) * 1024;
}

function isCapital(code: number): boolean {
  return code >= 65 && code <= 90;
}
