/** signalfd(2): a set of signals to be read, and `signalfd_entry`. */
import { O } from "../ffi/syscall.ts";
import type { fown_entry, signalfd_entry } from "../image/schema.gen.ts";
import { detail } from "./details.ts";
import type { Wanted } from "./make_descriptions.ts";
import { setOtherFlags } from "./other_flags.ts";
import type { TableProgram } from "./table_program.ts";

export interface Signalfd {
  readonly kind: "signalfd";
  /** Bit n - 1 is signal n. */
  readonly mask: bigint;
}

const NEW = -1;
const SIGNAL_SET_BYTES = 8;

/** @param details of fdinfo (signalfd_show_fdinfo in fs/signalfd.c) */
export function parseSignalfd(details: readonly string[]): Signalfd {
  const [mask] = detail(details, "sigmask:", /^\t([0-9a-f]{16})$/);
  return { kind: "signalfd", mask: BigInt(`0x${mask}`) };
}

export function dumpSignalfd(
  id: number,
  { mask }: Signalfd,
  flags: number,
  fown: fown_entry,
): signalfd_entry {
  return { id, flags, fown, sigmask: mask };
}

export function makeSignalfd(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
  { sigmask }: signalfd_entry,
): void {
  const { program } = table;
  const what = () => `descriptor ${fd}, a signalfd`;
  program.call(
    "signalfd4",
    [
      NEW,
      program.words([sigmask]),
      SIGNAL_SET_BYTES,
      O.CLOEXEC | (flags & O.NONBLOCK),
    ],
    () => `making ${what()}`,
  );
  table.settle(fd, cloexec);
  setOtherFlags(program, fd, flags, what);
}
