/**
 * Attaches System V segments. What a program has of a segment may be more than
 * one area, or less than all of it: parts with another protection, parts that
 * it has unmapped or moved. So each is attached behind the agent, where nothing
 * is in the way, and the parts are moved to their places from there. As parts
 * of one attachment shmdt(2) takes them away together.
 */
import type { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { PROT } from "../proc/maps.ts";
import type { AddressRange } from "./hole.ts";
import { isSegment } from "./vma.ts";

const SHM_RDONLY = 0o10000;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;

export interface AttachInput {
  /** System V segments by their ids. */
  readonly segments: ReadonlyMap<bigint, { readonly size: bigint }>;
  /** The agent's own memory; behind it is room for the largest segment. */
  readonly agent: AddressRange;
}

/** Bytes of address space that a segment takes. */
export function attachedLength({ size }: { readonly size: bigint }): bigint {
  const page = BigInt(PAGE_SIZE);
  return (size + page - 1n) / page * page;
}

/** @param vmas ascending; those of other kinds are left out */
export function attachSegments(
  program: Program,
  vmas: readonly vma_entry[],
  input: AttachInput,
): void {
  // Areas at their own distance from one another were attached together.
  const attachments = Map.groupBy(
    vmas.filter(isSegment),
    (vma) => `${vma.shmid} ${vma.start - vma.pgoff} ${isWritable(vma)}`,
  );
  for (const areas of attachments.values()) attach(program, areas, input);
}

/** Attached without SHM_RDONLY. */
function isWritable({ fdflags }: vma_entry): boolean {
  return fdflags === undefined || (fdflags & O.ACCMODE) === O.RDWR;
}

function attach(
  program: Program,
  areas: readonly vma_entry[],
  { segments, agent }: AttachInput,
): void {
  const [{ shmid }] = areas;
  const writable = isWritable(areas[0]);
  const purpose = `attaching System V segment ${shmid}`;
  const scratch = BigInt(agent.end);
  program.call(
    "shmat",
    [shmid, scratch, writable ? 0 : SHM_RDONLY],
    purpose,
  );
  const parts = neighbours(areas);
  for (const part of parts) {
    const [{ start, pgoff }] = part;
    const length = part[part.length - 1].end - start;
    program.call(
      "mremap",
      [
        scratch + pgoff,
        length,
        length,
        MREMAP_MAYMOVE | MREMAP_FIXED,
        start,
      ],
      purpose,
    );
  }
  program.call(
    "munmap",
    [scratch, attachedLength(segments.get(shmid)!)],
    purpose,
  );
  for (const part of parts) {
    divide(program, part, PROT.read | (writable ? PROT.write : 0), purpose);
  }
}

/** Areas that touch each other, together. */
function neighbours(areas: readonly vma_entry[]): vma_entry[][] {
  const parts: vma_entry[][] = [];
  for (const vma of areas) {
    const last = parts.at(-1);
    if (last?.at(-1)?.end === vma.start) last.push(vma);
    else parts.push([vma]);
  }
  return parts;
}

/**
 * Makes areas of a part, each with its protection. Those once divided stay so
 * (can_merge_remove_vma in mm/vma.c), also when neighbours are alike: first
 * every second one gets a protection that no other has.
 *
 * @param prot what all of it has
 */
function divide(
  program: Program,
  areas: readonly vma_entry[],
  prot: number,
  purpose: string,
): void {
  const protect = ({ start, end }: vma_entry, prot: number) =>
    program.call("mprotect", [start, end - start, prot], purpose);
  areas.forEach((vma, i) => {
    if (i % 2 === 1) protect(vma, 0);
  });
  areas.forEach((vma, i) => {
    if (vma.prot !== (i % 2 === 1 ? 0 : prot)) protect(vma, vma.prot);
  });
}
