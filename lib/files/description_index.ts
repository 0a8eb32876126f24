/**
 * Which descriptors, of one process or of several, share one open file
 * description (by dup, fork or SCM_RIGHTS). Each description is known by the
 * descriptor it was first seen with.
 */
import { syscall } from "../ffi/syscall.ts";

/** A descriptor of a process; it stands for the description behind it. */
export interface DescriptorPlace {
  readonly pid: number;
  readonly fd: number;
}

/** The same for equal places. */
export function nameOf({ pid, fd }: DescriptorPlace): string {
  return `${pid} ${fd}`;
}

/** Negative, zero or positive: any order that is the same for every question. */
type Compare = (a: DescriptorPlace, b: DescriptorPlace) => number;

/** Descriptions that look alike. */
interface Alike {
  /** In the kernel's order of them. */
  readonly sorted: DescriptorPlace[];
  /** The last one that had a number: what a process forks keeps its number. */
  readonly byNumber: Map<number, DescriptorPlace>;
}

export class DescriptionIndex {
  readonly #alike = new Map<string, Alike>();

  constructor(readonly compare: Compare = compareDescriptions) {}

  /**
   * The place by which the description at `place` is known already. When it is
   * not, it is from now on.
   *
   * @param looks what is the same for all descriptors of one description, and
   * cheaper to know than an answer of kcmp(2)
   * @throws SyscallError when one of two was closed meanwhile
   */
  find(place: DescriptorPlace, looks: string): DescriptorPlace | undefined {
    const alike = this.#alike.get(looks);
    if (alike === undefined) {
      this.#alike.set(looks, {
        sorted: [place],
        byNumber: new Map([[place.fd, place]]),
      });
      return undefined;
    }
    const found = this.#search(place, alike);
    alike.byNumber.set(place.fd, found ?? place);
    return found;
  }

  /** Adds the place where there is none. */
  #search(
    place: DescriptorPlace,
    { sorted, byNumber }: Alike,
  ): DescriptorPlace | undefined {
    const likely = byNumber.get(place.fd);
    if (likely !== undefined && this.compare(place, likely) === 0) {
      return likely;
    }
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const order = this.compare(place, sorted[middle]);
      if (order === 0) return sorted[middle];
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    sorted.splice(low, 0, place);
    return undefined;
  }
}

const KCMP_FILE = 0n;
/** Answers of kcmp(2); the order of two descriptions lasts until a reboot. */
const SAME = 0n;
const BELOW = 1n;

/** @throws SyscallError when one of the two was closed meanwhile */
export function isSameDescription(
  a: DescriptorPlace,
  b: DescriptorPlace,
): boolean {
  return compareDescriptions(a, b) === 0;
}

function compareDescriptions(a: DescriptorPlace, b: DescriptorPlace): number {
  const answer = syscall(
    "kcmp",
    BigInt(a.pid),
    BigInt(b.pid),
    KCMP_FILE,
    BigInt(a.fd),
    BigInt(b.fd),
  );
  return answer === SAME ? 0 : answer === BELOW ? -1 : 1;
}
