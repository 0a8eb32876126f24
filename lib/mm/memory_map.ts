/**
 * The description of an address space as a whole: where code, data, heap,
 * stack, arguments and environment are, the auxiliary vector, the program
 * file. Saved from /proc and brk(2), restored with PR_SET_MM_MAP.
 */
import type { Argument, Outcome, Program } from "../ffi/program.ts";
import type { mm_entry, vma_entry } from "../image/schema.gen.ts";
import { describeRings } from "./aio.ts";
import type { AuxvEntry } from "../proc/auxv.ts";
import type { Stat } from "../proc/stat.ts";

const PR_SET_MM = 35;
const PR_SET_MM_MAP = 14;

/** Asks for the end of the heap, which /proc does not tell exactly. */
export function askHeapEnd(program: Program): (outcome: Outcome) => bigint {
  const end = program.call("brk", [0], "the end of the heap");
  return (outcome) => outcome.result(end);
}

/** The auxiliary vector has at most this many words in the image (CRIU). */
const AUXV_WORDS = 44;

export function describeMemory(
  stat: Stat,
  heapEnd: bigint,
  auxv: readonly AuxvEntry[],
  exeFileId: number,
  vmas: vma_entry[],
  dumpable: number,
  thpDisabled: boolean,
): mm_entry {
  return {
    mm_start_code: BigInt(stat.startCode),
    mm_end_code: BigInt(stat.endCode),
    mm_start_data: BigInt(stat.startData),
    mm_end_data: BigInt(stat.endData),
    mm_start_stack: BigInt(stat.startStack),
    mm_start_brk: BigInt(stat.startBrk),
    mm_brk: heapEnd,
    mm_arg_start: BigInt(stat.argStart),
    mm_arg_end: BigInt(stat.argEnd),
    mm_env_start: BigInt(stat.envStart),
    mm_env_end: BigInt(stat.envEnd),
    exe_file_id: exeFileId,
    // Not AT_NULL: the kernel ends the vector itself.
    mm_saved_auxv: auxv.filter(([type]) => type !== 0n).flat()
      .slice(0, AUXV_WORDS),
    vmas,
    dumpable,
    aios: describeRings(vmas),
    thp_disabled: thpDisabled,
  };
}

/**
 * Sets all of it at once (struct prctl_mm_map, linux/prctl.h).
 *
 * @param exe descriptor of the program file: nothing of the old one may be
 * mapped any more; -1: it stays what it is, as in a child that inherits it
 */
export function restoreMemoryMap(
  program: Program,
  mm: mm_entry,
  exe: Argument,
): void {
  const auxv = program.words([...mm.mm_saved_auxv, 0n, 0n]);
  const map = program.words([
    mm.mm_start_code,
    mm.mm_end_code,
    mm.mm_start_data,
    mm.mm_end_data,
    mm.mm_start_brk,
    mm.mm_brk,
    mm.mm_start_stack,
    mm.mm_arg_start,
    mm.mm_arg_end,
    mm.mm_env_start,
    mm.mm_env_end,
    auxv,
    0n, // auxv_size and exe_fd, two 32-bit words
  ]);
  program.setInt32(map, 96, auxv.length);
  program.call(
    "store",
    [program.at(map, 100), exe, 4],
    "noting the program file",
  );
  program.call(
    "prctl",
    [PR_SET_MM, PR_SET_MM_MAP, map, map.length, 0],
    "describing the address space (PR_SET_MM_MAP)",
  );
}
