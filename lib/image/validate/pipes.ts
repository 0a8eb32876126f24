/** Checks pipes, and what is in them. */
import { imageName } from "../kinds.ts";
import { fd_types } from "../schema.gen.ts";
import { type FileTable, PERMISSIONS } from "./file_table.ts";
import type { Findings } from "./findings.ts";

/** What the kernel takes for a packet of a pipe (PIPE_BUF). */
const LONGEST_PACKET = 4096;

/** The kernel takes no larger pipe (round_pipe_size of fs/pipe.c). */
const LARGEST_PIPE = 2 ** 31;

/** What is in pipes and fifos. */
export function checkPipes(findings: Findings, table: FileTable): void {
  const numbers = {
    "pipes-data": new Set<number | undefined>(),
    "fifo-data": new Set<number | undefined>(),
  };
  table.each(fd_types.PIPE, ({ pipe }) => {
    numbers["pipes-data"].add(pipe?.pipe_id);
  });
  table.each(fd_types.FIFO, ({ fifo }) => {
    numbers["fifo-data"].add(fifo?.pipe_id);
  });
  const lengths = new Map<number, number>();
  for (const kind of ["pipes-data", "fifo-data"] as const) {
    const seen = new Set<number>();
    (findings.read(kind, undefined) ?? []).forEach((data, number) => {
      const { pipe_id, bytes, size } = data;
      const wrong = (field: string, why: string) =>
        findings.add(imageName(kind), number, field, why);
      if (seen.has(pipe_id)) wrong("pipe_id", `${pipe_id} is there twice`);
      seen.add(pipe_id);
      if ((size ?? 0) > LARGEST_PIPE) {
        wrong("size", `${size} is more than a pipe can have`);
      }
      // Both kinds may use a number; packets are for the one that has files.
      if (numbers[kind].has(pipe_id)) lengths.set(pipe_id, bytes);
    });
  }
  (findings.read("ckpt-pipes", undefined) ?? []).forEach((entry, number) => {
    const { pipe_id, packets, unconnected } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-pipes"), number, field, why);
    if (
      !numbers["pipes-data"].has(pipe_id) && !numbers["fifo-data"].has(pipe_id)
    ) wrong("pipe_id", `${pipe_id} is no pipe of files.img`);
    for (const packet of packets) {
      if (packet === 0 || packet > LONGEST_PACKET) {
        wrong("packets", `${packet} is not the length of a packet`);
      }
    }
    if ((entry.mode ?? 0) > PERMISSIONS) {
      wrong("mode", `0${entry.mode!.toString(8)} is more than permissions`);
    }
    for (const id of unconnected) {
      if (table.file(id)?.fifo?.pipe_id !== pipe_id) {
        wrong("unconnected", `${id} is no descriptor of this fifo`);
      }
    }
    const sum = packets.reduce((sum, packet) => sum + packet, 0);
    const length = lengths.get(pipe_id) ?? 0;
    if (packets.length > 0 && sum !== length) {
      wrong("packets", `have ${sum} bytes, but the pipe ${length}`);
    }
  });
}
