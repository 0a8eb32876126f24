/**
 * Devices behind descriptors: which have no state of their own, so that
 * opening them again by their path is enough.
 */
import { deviceNumbers, type FileStatus, S_IF } from "../ffi/syscall.ts";

/**
 * Character devices without a state in the open file but its position and
 * flags, by major numbers (Documentation/admin-guide/devices.txt of the
 * kernel); with minor numbers where not all of the major are.
 */
const STATELESS: Readonly<Record<number, ReadonlySet<number> | "all">> = {
  // mem, null, zero, full, random, urandom, kmsg
  1: "all",
  // vcs: the content of consoles
  7: "all",
  // hw_random, btrfs-control, autofs, loop-control; kvm, of which each virtual
  // machine is a descriptor of its own; userfaultfd, likewise
  10: new Set([183, 234, 235, 237, 232, 257]),
  // cpu/N/msr and cpu/N/cpuid
  202: "all",
  203: "all",
};

/** What is known of others: their major and minor numbers. */
const STATES: Readonly<Record<string, string>> = {
  "10:229": "it is the connection to a file system (FUSE)",
  "10:130": "it is a watchdog, which may end the host when it is closed",
  "10:238": "it serves the network of a virtual machine (vhost-net)",
  "10:196": "it is a connection to devices of a virtual machine (vfio)",
  "10:223": "it is an input device that the program makes (uinput)",
  "10:259": "it keeps the host from deep sleep as long as it is open",
};
const MAJORS: Readonly<Record<number, string>> = {
  13: "it is an input device with events of its own",
  116: "it is a sound device",
  195: "it is a graphics processor",
  226: "it is a graphics processor",
};

/** Why a device cannot be opened again; undefined: it can, or is none. */
export function deviceProblem(
  { mode, rdev }: Pick<FileStatus, "mode" | "rdev">,
): string | undefined {
  if ((mode & S_IF.MT) !== S_IF.CHR) return undefined;
  const { major, minor } = deviceNumbers(rdev);
  const minors = STATELESS[major];
  if (minors === "all" || minors?.has(minor)) return undefined;
  const state = STATES[`${major}:${minor}`] ?? MAJORS[major] ??
    "ckpt does not know whether it has a state of its own";
  return `the device ${major}:${minor} is not supported: ${state}`;
}

/** Whether a file is a device, which has a number. */
export function isDevice({ mode }: Pick<FileStatus, "mode">): boolean {
  const type = mode & S_IF.MT;
  return type === S_IF.CHR || type === S_IF.BLK;
}
