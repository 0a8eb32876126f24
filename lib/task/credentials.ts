/**
 * Credentials of one thread: ids, groups, capability sets, securebits,
 * no_new_privs (credentials(7), capabilities(7)). Linux keeps all of them per
 * thread, and raw system calls change those of the calling thread only.
 */
import { CkptError, EXIT } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import type { creds_entry } from "../image/schema.gen.ts";
import { CAPABILITIES } from "../proc/capability.ts";
import type { Status } from "../proc/status.ts";

/** prctl(2) */
const PR_CAPBSET_DROP = 24;
const PR_SET_SECUREBITS = 28;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_RAISE = 2;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;

/** Changes of ids leave the capabilities alone (linux/securebits.h). */
const SECBIT_NO_SETUID_FIXUP = 1 << 2;

const CAPABILITY_VERSION_3 = 0x2008_0522;

/** @param status of the thread, not of its process */
export function credentialsEntry(
  status: Status,
  securebits: number,
): creds_entry {
  const [uid, euid, suid, fsuid] = status.uid;
  const [gid, egid, sgid, fsgid] = status.gid;
  return {
    uid,
    gid,
    euid,
    egid,
    suid,
    sgid,
    fsuid,
    fsgid,
    cap_inh: halves(status.capInh),
    cap_prm: halves(status.capPrm),
    cap_eff: halves(status.capEff),
    cap_bnd: halves(status.capBnd),
    secbits: securebits,
    groups: [...status.groups],
    ...(status.noNewPrivs ? { no_new_privs: 1 } : {}),
    cap_amb: halves(status.capAmb ?? 0n),
  };
}

/** What the task that will be restored into has to begin with. */
export interface StartingCredentials {
  /** Undefined: any. */
  readonly groups: readonly number[] | undefined;
  readonly capPrm: bigint;
  readonly capBnd: bigint;
  /** The highest capability of this kernel: /proc/sys/kernel/cap_last_cap. */
  readonly lastCapability: number;
}

/**
 * Refuses credentials that cannot be had: nobody can regain a capability.
 *
 * @throws CkptError permission, naming the capabilities
 */
export function requireCapabilities(
  entry: creds_entry,
  start: StartingCredentials,
  tid: number,
): void {
  const known = (1n << BigInt(start.lastCapability + 1)) - 1n;
  const permitted = whole(entry.cap_prm) & known;
  const bounding = whole(entry.cap_bnd) & known;
  const reasons = [
    { set: "permitted", missing: permitted & ~start.capPrm },
    { set: "bounding", missing: bounding & ~start.capBnd },
  ].filter(({ missing }) => missing !== 0n);
  if (reasons.length === 0) return;
  throw new CkptError(
    EXIT.permission,
    "restoring credentials",
    reasons.map(({ set, missing }) => ({
      object: `thread ${tid}`,
      why: `its ${set} capabilities include ${names(missing)}, which ckpt ` +
        "does not have here",
      remedy: "run ckpt with these capabilities",
    })),
  );
}

/** Whether two threads have the same. */
export function areAlike(a: creds_entry, b: creds_entry): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Whether a thread with these can do what one can that begins with `start`. */
export function hasAllRights(
  entry: creds_entry,
  start: StartingCredentials,
): boolean {
  const { uid, euid, suid, fsuid, gid, egid, sgid, fsgid, secbits } = entry;
  const ids = [uid, euid, suid, fsuid, gid, egid, sgid, fsgid];
  return ids.every((id) => id === 0) && secbits === 0 &&
    (start.capPrm & ~whole(entry.cap_eff)) === 0n &&
    (start.capBnd & ~whole(entry.cap_bnd)) === 0n;
}

/**
 * Gives the calling thread its credentials. It must start with the full
 * capabilities of root in its user namespace.
 *
 * The kernel clears the parent-death signal and the dumpable attribute when
 * ids or capabilities change (commit_creds in kernel/cred.c): restore those
 * afterwards; and seccomp filters before, as this may end the right to.
 */
export function restoreCredentials(
  program: Program,
  entry: creds_entry,
  start: StartingCredentials,
): void {
  if (start.groups === undefined || !equal(entry.groups, start.groups)) {
    const groups = new Uint32Array(entry.groups);
    program.call(
      "setgroups",
      [groups.length, program.bytes(new Uint8Array(groups.buffer))],
      "setting the supplementary groups",
    );
  }
  program.call(
    "prctl",
    [PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP],
    "keeping capabilities while ids change",
  );
  setIds(program, entry);
  // Inheritable before the bounding set shrinks, which limits what can be
  // added; ambient before the securebits, which may forbid to raise them.
  const known = (1n << BigInt(start.lastCapability + 1)) - 1n;
  const inheritable = whole(entry.cap_inh) & known;
  setCapabilities(
    program,
    { effective: start.capPrm, permitted: start.capPrm, inheritable },
    "setting the inheritable capabilities",
  );
  raiseAmbient(program, whole(entry.cap_amb), start.lastCapability);
  const drop = start.capBnd & ~whole(entry.cap_bnd);
  shrinkBounding(program, drop, start.lastCapability);
  program.call(
    "prctl",
    [PR_SET_SECUREBITS, entry.secbits],
    "setting the securebits",
  );
  setCapabilities(
    program,
    {
      effective: whole(entry.cap_eff) & known,
      permitted: whole(entry.cap_prm) & known,
      inheritable,
    },
    "setting the capabilities",
  );
  if (entry.no_new_privs === 1) {
    program.call(
      "prctl",
      [PR_SET_NO_NEW_PRIVS, 1],
      "setting no_new_privs",
    );
  }
}

function setIds(program: Program, entry: creds_entry): void {
  program.call(
    "setresgid",
    [entry.gid, entry.egid, entry.sgid],
    "setting the group ids",
  );
  program.call(
    "setresuid",
    [entry.uid, entry.euid, entry.suid],
    "setting the user ids",
  );
  // Both follow the effective id; they report no failure.
  if (entry.fsgid !== entry.egid) {
    program.call(
      "setfsgid",
      [entry.fsgid],
      "setting the group id for file access",
    );
  }
  if (entry.fsuid !== entry.euid) {
    program.call(
      "setfsuid",
      [entry.fsuid],
      "setting the user id for file access",
    );
  }
}

function raiseAmbient(
  program: Program,
  ambient: bigint,
  lastCapability: number,
): void {
  program.call(
    "prctl",
    [PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL],
    "clearing the ambient capabilities",
  );
  for (const i of bitsOf(ambient, lastCapability)) {
    program.call(
      "prctl",
      [PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i],
      `raising ${nameOf(i)} in the ambient capabilities`,
    );
  }
}

/** @param drop what is no more to be had */
function shrinkBounding(
  program: Program,
  drop: bigint,
  lastCapability: number,
): void {
  for (const i of bitsOf(drop, lastCapability)) {
    program.call(
      "prctl",
      [PR_CAPBSET_DROP, i],
      `dropping ${nameOf(i)} from the bounding capabilities`,
    );
  }
}

function bitsOf(set: bigint, lastCapability: number): number[] {
  return Array.from({ length: lastCapability + 1 }, (_, i) => i)
    .filter((i) => (set >> BigInt(i) & 1n) !== 0n);
}

interface CapabilitySets {
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
}

/** capset(2), version 3: two structs with 32 bits of each set. */
function setCapabilities(
  program: Program,
  sets: CapabilitySets,
  purpose: string,
): void {
  const header = new Uint32Array([CAPABILITY_VERSION_3, 0]);
  const [effective, permitted, inheritable] = [
    halves(sets.effective),
    halves(sets.permitted),
    halves(sets.inheritable),
  ];
  const data = new Uint32Array([
    effective[0],
    permitted[0],
    inheritable[0],
    effective[1],
    permitted[1],
    inheritable[1],
  ]);
  program.call("capset", [
    program.bytes(new Uint8Array(header.buffer)),
    program.bytes(new Uint8Array(data.buffer)),
  ], purpose);
}

/** Low word first. */
function halves(mask: bigint): number[] {
  return [Number(mask & 0xffff_ffffn), Number(mask >> 32n & 0xffff_ffffn)];
}

/** An absent array is an empty set. */
function whole(words: readonly number[]): bigint {
  return BigInt(words[0] ?? 0) | BigInt(words[1] ?? 0) << 32n;
}

function nameOf(capability: number): string {
  return CAPABILITIES[capability] ?? `capability ${capability}`;
}

function names(mask: bigint): string {
  const list = [];
  for (let i = 0; mask >> BigInt(i) !== 0n; i++) {
    if ((mask >> BigInt(i) & 1n) !== 0n) list.push(nameOf(i));
  }
  return list.join(", ");
}

function equal(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
