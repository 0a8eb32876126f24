/**
 * Which descriptors, of one process or of several, share one open file
 * description (by dup, fork or SCM_RIGHTS). Each description is known by the
 * descriptor it was first seen with. Those that look alike are told apart by
 * where the kernel has them, when that is known, and the order of kcmp(2), in
 * c/lib/descriptors.c.
 */
import { library } from "../ffi/library.ts";
import { syscall, SyscallError } from "../ffi/syscall.ts";
import type { FactTable } from "./descriptor_facts.ts";

/** A descriptor of a process; it stands for the description behind it. */
export interface DescriptorPlace {
  readonly pid: number;
  readonly fd: number;
}

/** The same for equal places. */
export function nameOf({ pid, fd }: DescriptorPlace): string {
  return `${pid} ${fd}`;
}

/** The same, faster: pids have 22 bits, descriptors 31. */
export function numberOf({ pid, fd }: DescriptorPlace): number {
  return pid * 2 ** 31 + fd;
}

/** struct description of c/lib/descriptors.c. */
const DESCRIPTION = 40;

export class DescriptionIndex {
  /** A tree in the kernel's order; the first one holds its root. */
  #all = new Uint8Array(1024 * DESCRIPTION);
  /** By which each is known. */
  readonly #places: (DescriptorPlace | undefined)[] = [undefined];

  /**
   * The places by which the descriptions in a table are known already;
   * undefined for new ones, which are known from now on.
   *
   * @param pid of the process, or of a thread of it: places have this number
   * @throws SyscallError when one was closed meanwhile
   */
  find(pid: number, table: FactTable): (DescriptorPlace | undefined)[] {
    const { records, fds } = table;
    const count = fds.length;
    const known = this.#places.length;
    const needed = (known + count) * DESCRIPTION;
    if (this.#all.length < needed) {
      const grown = new Uint8Array(2 * needed);
      grown.set(this.#all);
      this.#all = grown;
    }
    const found = new Uint32Array(count);
    const result = Number(
      library("descriptors").ckpt_find_descriptions(
        this.#all,
        BigInt(known),
        pid,
        records,
        BigInt(count),
        new Uint8Array(found.buffer),
      ),
    );
    if (result < 0) throw new SyscallError("kcmp", -result);
    return Array.from(found, (index, i) => {
      const place = this.#places[index];
      if (place === undefined) this.#places[index] = { pid, fd: fds[i] };
      return place;
    });
  }
}

const KCMP_FILE = 0n;

/** @throws SyscallError when one of the two was closed meanwhile */
export function isSameDescription(
  a: DescriptorPlace,
  b: DescriptorPlace,
): boolean {
  return syscall(
    "kcmp",
    BigInt(a.pid),
    BigInt(b.pid),
    KCMP_FILE,
    BigInt(a.fd),
    BigInt(b.fd),
  ) === 0n;
}
