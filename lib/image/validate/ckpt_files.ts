/**
 * Checks ckpt-files.img: what CRIU's images do not tell of eventfds and epolls,
 * and what files are to be compared with.
 */
import { imageName } from "../kinds.ts";
import {
  type ckpt_file_entry,
  fd_types,
  type fdinfo_entry,
} from "../schema.gen.ts";
import {
  type FileTable,
  HIGHEST_DESCRIPTOR,
  type Wrong,
} from "./file_table.ts";
import type { Findings } from "./findings.ts";

/**
 * What an image of ours tells of eventfds and epolls.
 *
 * @param descriptors those of all tables
 */
export function checkObjects(
  findings: Findings,
  table: FileTable,
  descriptors: readonly (readonly fdinfo_entry[])[],
): void {
  const isOpen = (file: number) =>
    descriptors.some((entries) => entries.some(({ id }) => id === file));
  const seen = new Set<number>();
  (findings.read("ckpt-files", undefined) ?? []).forEach((entry, place) => {
    const { id, semaphore, watched, busy_polling } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-files"), place, field, why);
    const { efd, epfd } = table.file(id) ?? {};
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (semaphore && efd === undefined) wrong("id", `${id} is no eventfd`);
    if (busy_polling !== undefined) {
      if (epfd === undefined) wrong("id", `${id} is no epoll`);
      if (busy_polling.length !== EPOLL_PARAMS_BYTES) {
        wrong("busy_polling", `has ${busy_polling.length} bytes`);
      }
    }
    checkRecorded(entry, table.has(fd_types.REG, id), wrong);
    watched.forEach(({ index, number, file }) => {
      if (epfd?.tfd[index] === undefined) {
        wrong("watched.index", `epoll ${id} has no entry ${index}`);
      }
      if (number > HIGHEST_DESCRIPTOR) {
        wrong("watched.number", `${number} is no descriptor`);
      }
      if (!isOpen(file)) {
        wrong("watched.file", `no process has file ${file} open`);
      }
    });
  });
}

/** struct epoll_params of linux/eventpoll.h */
const EPOLL_PARAMS_BYTES = 8;

const SECOND_NS = 1_000_000_000;
const SHA256_BYTES = 32;

/** What a file is to be compared with. */
function checkRecorded(
  { id, modified_s, modified_ns = 0, digest, digest_bytes, device }:
    ckpt_file_entry,
  isNamed: boolean,
  wrong: Wrong,
): void {
  if ((modified_s ?? digest ?? device) !== undefined && !isNamed) {
    wrong("id", `${id} is no file with a path`);
  }
  if (modified_ns >= SECOND_NS) {
    wrong("modified_ns", `${modified_ns} is more than a second`);
  }
  if (digest !== undefined && digest.length !== SHA256_BYTES) {
    wrong("digest", `has ${digest.length} bytes, not ${SHA256_BYTES}`);
  }
  if ((digest === undefined) !== (digest_bytes === undefined)) {
    wrong("digest_bytes", "is there without digest, or digest without it");
  }
}
