/** eventfd(2): a counter, and `eventfd_file_entry`. */
import { O } from "../ffi/syscall.ts";
import type { eventfd_file_entry, fown_entry } from "../image/schema.gen.ts";
import { detail } from "./details.ts";
import { setOtherFlags } from "./other_flags.ts";
import type { Wanted } from "./make_descriptions.ts";
import type { TableProgram } from "./table_program.ts";

export interface Eventfd {
  readonly kind: "eventfd";
  readonly count: bigint;
  /** EFD_SEMAPHORE: read(2) takes one, not all. */
  readonly semaphore: boolean;
}

const EFD_SEMAPHORE = 1;
/** What write(2) can add up to. */
const HIGHEST_COUNT = 2n ** 64n - 2n;
/** The first count that eventfd2(2) does not take. */
const BEYOND_INITIAL = 2n ** 32n;

/** @param details of fdinfo (eventfd_show_fdinfo in fs/eventfd.c) */
export function parseEventfd(details: readonly string[]): Eventfd {
  const [count] = detail(details, "eventfd-count:", /^\s*([0-9a-f]{1,16})$/);
  // Since 6.5; before, nothing tells.
  const semaphore = details.includes("eventfd-semaphore: 1");
  return { kind: "eventfd", count: BigInt(`0x${count}`), semaphore };
}

/** Whether eventfd_file_entry is not enough for CRIU to make the same again. */
export function isBeyondEntry({ count, semaphore }: Eventfd): boolean {
  return semaphore || count >= BEYOND_INITIAL;
}

export function dumpEventfd(
  id: number,
  { count }: Eventfd,
  flags: number,
  fown: fown_entry,
): eventfd_file_entry {
  return { id, flags, fown, counter: count };
}

/** What the kernel would not take; undefined: nothing. */
export function eventfdProblem(
  { counter }: eventfd_file_entry,
): string | undefined {
  return counter <= HIGHEST_COUNT
    ? undefined
    : `the count ${counter} is more than can be written to an eventfd`;
}

export function makeEventfd(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
  { counter }: eventfd_file_entry,
  semaphore: boolean,
): void {
  const { program } = table;
  const what = () => `descriptor ${fd}, an eventfd`;
  const initial = counter < BEYOND_INITIAL ? counter : 0n;
  program.call(
    "eventfd2",
    [
      initial,
      O.CLOEXEC | (flags & O.NONBLOCK) | (semaphore ? EFD_SEMAPHORE : 0),
    ],
    () => `making ${what()}`,
  );
  table.settle(fd, cloexec);
  if (initial !== counter) {
    program.call(
      "write",
      [fd, program.words([counter]), 8],
      () => `setting the count of ${what()}`,
    );
  }
  setOtherFlags(program, fd, flags, what);
}
