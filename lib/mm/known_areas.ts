/**
 * The areas of processes, as smaps tells them. Processes that were forked often
 * have the same text, and so has one process at two looks: what it means is
 * found out once.
 */
import { readSmapsText } from "../proc/read.ts";
import { parseSmaps, type SmapsMapping } from "../proc/smaps.ts";
import { planVmas, type VmaPlan } from "./vma.ts";

export interface Areas {
  /** As {@link readSmapsText} gives it. */
  readonly smaps: string;
  /** The same object for the same text. */
  readonly mappings: readonly SmapsMapping[];
  /** Of this process alone. */
  readonly vmas: VmaPlan;
}

const parsed = new Map<string, readonly SmapsMapping[]>();
/** Without reasons against them, which name the process. */
const planned = new WeakMap<readonly SmapsMapping[], VmaPlan>();

/**
 * @param pid for the words of reasons; @param tid a thread of it that lives
 * @throws CkptError
 */
export function readAreas(pid: number, tid: number): Areas {
  const smaps = readSmapsText(tid);
  const mappings = mappingsOf(smaps, tid);
  const known = planned.get(mappings);
  if (known !== undefined) return { smaps, mappings, vmas: copyOf(known) };
  const vmas = planVmas(pid, mappings);
  if (vmas.reasons.length === 0) planned.set(mappings, copyOf(vmas));
  return { smaps, mappings, vmas };
}

/** @throws CkptError */
export function readMappings(tid: number): readonly SmapsMapping[] {
  return mappingsOf(readSmapsText(tid), tid);
}

function mappingsOf(smaps: string, tid: number): readonly SmapsMapping[] {
  let mappings = parsed.get(smaps);
  if (mappings === undefined) {
    mappings = parseSmaps(smaps, `/proc/${tid}/smaps`);
    parsed.set(smaps, mappings);
  }
  return mappings;
}

/** Each process has its own numbers for the files that are mapped. */
function copyOf({ vmas, reasons }: VmaPlan): VmaPlan {
  return {
    vmas: vmas.map((vma) => ({ ...vma, entry: { ...vma.entry } })),
    reasons,
  };
}
