/**
 * State that CRIU's format has no place for. Where restoring without it would
 * be wrong, the inventory lists "ckpt:<feature>" among the plugins: CRIU then
 * refuses, because it has no plugin of that name.
 */

export const FEATURES = {
  "ckpt:personality": "the personality of a process",
  "ckpt:affinity": "the processors a thread may run on",
  "ckpt:xsave": "registers beyond those of CRIU's format",
  "ckpt:syscall-user-dispatch": "system calls dispatched to the program",
  "ckpt:tsc": "a forbidden time stamp counter",
  "ckpt:shared-vm": "memory that is that of the parent (CLONE_VM)",
  "ckpt:packets": "packets in a pipe",
} as const;

export type Feature = keyof typeof FEATURES;

/** Whether this version of ckpt restores what such a name stands for. */
export function isKnownFeature(name: string): name is Feature {
  return Object.hasOwn(FEATURES, name);
}
