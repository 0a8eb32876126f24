/** Checks System V message queues and semaphores of an ipc namespace. */

import { imageName } from "../kinds.ts";
import type { ipc_desc_entry, task_kobj_ids_entry } from "../schema.gen.ts";
import type { Findings } from "./findings.ts";

const LARGEST_ID = 0x7fff_ffff;
const PERMISSIONS = 0o777;
/** SEMVMX of linux/sem.h. */
const LARGEST_VALUE = 32767;
/** SEMMSL can be no larger (ipc/ipc_sysctl.c), nor the size of a message. */
const MOST = 0x7fff_ffff;

/** @param root undefined: nothing is known of it */
export function checkSysvObjects(
  findings: Findings,
  root?: task_kobj_ids_entry,
): void {
  const namespace = root?.ipc_ns_id;
  if (namespace === undefined) return;
  const queues = findings.read("ipcns-msg", namespace) ?? [];
  checkAll(findings, imageName("ipcns-msg", namespace), queues);
  queues.forEach(({ extra }, i) => {
    const wrong = extra.findIndex(({ mtype }) =>
      mtype === 0n || mtype > 0x7fff_ffff_ffff_ffffn
    );
    if (wrong < 0) return;
    findings.add(
      imageName("ipcns-msg", namespace),
      i,
      `message ${wrong}`,
      `${extra[wrong].mtype} is no type of a message`,
    );
  });
  const sets = findings.read("ipcns-sem", namespace) ?? [];
  checkAll(findings, imageName("ipcns-sem", namespace), sets);
  sets.forEach(({ nsems, extra }, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ipcns-sem", namespace), i, field, why);
    if (nsems === 0 || nsems > MOST) wrong("nsems", `is ${nsems}`);
    const value = extra.find((value) => value > LARGEST_VALUE);
    if (value !== undefined) wrong("", `${value} is no value of a semaphore`);
  });
}

/** What the kernel asks of all kinds. */
function checkAll(
  findings: Findings,
  file: string,
  objects: readonly { desc: ipc_desc_entry }[],
): void {
  const ids = new Set<number>();
  const keys = new Set<number>();
  objects.forEach(({ desc: { id, key, mode } }, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(file, i, field, why);
    if (id > LARGEST_ID) wrong("desc.id", `${id} is no id`);
    if (ids.has(id)) wrong("desc.id", `${id} is there twice`);
    if (key !== 0 && keys.has(key)) wrong("desc.key", `${key} is there twice`);
    if ((mode & ~PERMISSIONS) !== 0) {
      wrong("desc.mode", `0${mode.toString(8)} has unknown bits`);
    }
    ids.add(id);
    keys.add(key);
  });
}
