/**
 * Checks a whole image before anything is made of it: what each image says
 * against the others, and against what the kernel will take.
 */

import type { ImageSet } from "../image_set.ts";
import { imageName } from "../kinds.ts";
import { checkCores } from "./core.ts";
import { checkExtensions } from "./extensions.ts";
import { checkDescriptors } from "./descriptors.ts";
import { checkFiles } from "./files.ts";
import { Findings } from "./findings.ts";
import { checkMemory, TASK_SIZE } from "./memory.ts";
import { checkMounts } from "./mounts.ts";
import { checkSysvObjects } from "./sysv_objects.ts";
import { checkTree } from "./tree.ts";

export interface ValidateOptions {
  /** The end of user space on this machine; that of 47 bits by default. */
  taskSize?: bigint;
}

/**
 * @throws CkptError (EXIT.image) with everything that is wrong, naming file,
 * entry and field
 */
export function validateImageSet(
  set: ImageSet,
  options: ValidateOptions = {},
): void {
  const findings = new Findings(set);
  checkInventory(findings);
  const tasks = checkTree(findings);
  const files = checkFiles(findings);
  checkCores(findings, tasks);
  checkMemory(findings, tasks, files, options.taskSize ?? TASK_SIZE);
  checkDescriptors(findings, tasks, files);
  checkSysvObjects(findings, tasks[0]?.ids);
  checkMounts(findings, tasks);
  checkExtensions(findings, tasks);
  findings.finish();
}

function checkInventory(findings: Findings): void {
  const { fdinfo_per_id, root_ids, root_cg_set } = findings.set.inventory;
  const wrong = (field: string, why: string) =>
    findings.add(imageName("inventory"), 0, field, why);
  if (!fdinfo_per_id) wrong("fdinfo_per_id", "is not set: too old an image");
  if (root_ids === undefined) wrong("root_ids", "is missing");
  if (!root_cg_set) wrong("root_cg_set", "is missing or 0");
}
