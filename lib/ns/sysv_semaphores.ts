/**
 * System V semaphores of an ipc namespace that goes with the tree (sysvipc(7)).
 */
import { addressOf, syscall } from "../ffi/syscall.ts";
import type { Entry } from "../image/kinds.ts";
import { readSysvSemaphores } from "../proc/read.ts";
import {
  attemptSysv,
  makeSysvObject,
  nameOf,
  setSysvOwner,
} from "./sysv_ids.ts";
import { writeSysctls } from "./sysctl.ts";

const GETALL = 13n;
const SETALL = 17n;

/** SEMMSL, SEMMNS, SEMOPM and SEMMNI (proc_sys_kernel(5)). */
const LIMITS = "/proc/sys/kernel/sem";

/**
 * Of the namespace that ckpt is in, while nobody uses them.
 *
 * @throws CkptError naming the set that cannot be read
 */
export function dumpSemaphores(): Entry<"ipcns-sem">[] {
  return readSysvSemaphores().map(({ count, ...desc }) => {
    const extra = new Uint16Array(count);
    const bytes = new Uint8Array(extra.buffer);
    attemptSysv(
      `reading ${nameOf("semaphores", desc.id)}`,
      () => syscall("semctl", BigInt(desc.id), 0n, GETALL, addressOf(bytes)),
    );
    return { desc, nsems: count, extra };
  });
}

/**
 * Makes them in the namespace that ckpt is in, which is new. Its limits are
 * what they need afterwards, at least.
 *
 * @throws CkptError naming the set
 */
export function restoreSemaphores(sets: readonly Entry<"ipcns-sem">[]): void {
  if (sets.length === 0) return;
  const [msl, mns, opm, mni] = Deno.readTextFileSync(LIMITS).trim()
    .split(/\s+/).map(Number);
  const counts = sets.map(({ nsems }) => nsems);
  const limits = [
    counts.reduce((a, b) => Math.max(a, b), msl),
    Math.max(mns, counts.reduce((a, b) => a + b, 0)),
    opm,
    Math.max(mni, sets.length),
  ];
  writeSysctls([[LIMITS, limits.join("\t")]]);
  for (const { desc, nsems, extra } of sets) {
    attemptSysv(`making ${nameOf("semaphores", desc.id)}`, () => {
      makeSysvObject(
        "semaphores",
        desc,
        (key, flags) => syscall("semget", key, BigInt(nsems), flags),
      );
      const bytes = new Uint8Array(extra.slice().buffer);
      syscall("semctl", BigInt(desc.id), 0n, SETALL, addressOf(bytes));
      setSysvOwner("semaphores", desc);
    });
  }
}
