/** Checks System V segments, and the areas that are attached to them. */

import { imageName } from "../kinds.ts";
import { PAGE_SIZE } from "../pagemap.ts";
import type { task_kobj_ids_entry, vma_entry } from "../schema.gen.ts";
import { VMA_STATUS } from "../vma_status.ts";
import type { Findings } from "./findings.ts";

const PAGE = BigInt(PAGE_SIZE);
const LARGEST_ID = 0x7fff_ffff;
const LARGEST_SIZE = 1n << 47n;
/** Permissions, SHM_DEST and SHM_LOCKED. */
const KNOWN_MODE = 0o3777;
const EXTENSIONS = imageName("ckpt-segments");

export class SegmentsCheck {
  /** Ids of those whose pages are in a pagemap-shmem image. */
  readonly stored: readonly bigint[];
  /** Length in whole pages by id. */
  readonly #lengths = new Map<bigint, bigint>();

  /**
   * Checks the segments of the ipc namespace that the tree was in.
   *
   * @param root undefined: nothing is known of it
   */
  constructor(readonly findings: Findings, root?: task_kobj_ids_entry) {
    const namespace = root?.ipc_ns_id ??
      findings.set.inventory.root_ids?.ipc_ns_id;
    const segments = namespace === undefined
      ? []
      : findings.read("ipcns-shm", namespace) ?? [];
    segments.forEach(({ desc, size }, i) => {
      const wrong = (field: string, why: string) =>
        findings.add(imageName("ipcns-shm", namespace), i, field, why);
      const id = BigInt(desc.id);
      if (desc.id > LARGEST_ID) wrong("desc.id", `${id} is no id`);
      if (this.#lengths.has(id)) wrong("desc.id", `${id} is there twice`);
      if (size === 0n || size > LARGEST_SIZE) wrong("size", `is ${size}`);
      if ((desc.mode & ~KNOWN_MODE) !== 0) {
        wrong("desc.mode", `0${desc.mode.toString(8)} has unknown bits`);
      }
      this.#lengths.set(id, (size + PAGE - 1n) / PAGE * PAGE);
    });
    this.stored = segments.filter(({ in_pagemaps }) => in_pagemaps)
      .map(({ desc }) => BigInt(desc.id));
    (findings.read("ckpt-segments", undefined) ?? []).forEach(({ id }, i) => {
      if (this.#lengths.has(BigInt(id))) return;
      findings.add(EXTENSIONS, i, "id", `${id} is no segment of the program's`);
    });
  }

  /** @param file the image that the areas are in */
  checkAreas(file: string, vmas: readonly vma_entry[]): void {
    vmas.forEach(({ status, shmid, pgoff, start, end }, i) => {
      if ((status & VMA_STATUS.SYSVIPC) === 0) return;
      const length = this.#lengths.get(shmid);
      if (length === undefined) {
        this.findings.add(
          file,
          0,
          `vmas[${i}].shmid`,
          `${shmid} is no System V segment of ipcns-shm`,
        );
      } else if (pgoff + end - start > length) {
        this.findings.add(
          file,
          0,
          `vmas[${i}]`,
          `goes beyond the end of System V segment ${shmid}`,
        );
      }
    });
  }
}
