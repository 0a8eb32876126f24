/** Checks pseudo terminals, and what is under way in them. */
import { imageName } from "../kinds.ts";
import { fd_types, TtyType } from "../schema.gen.ts";
import { FILES, type FileTable, PERMISSIONS } from "./file_table.ts";
import type { Findings } from "./findings.ts";

/** NR_UNIX98_PTY_MAX of the kernel's include/linux/tty.h. */
const TERMINALS = 2 ** 20;

/** Pseudo terminals: their numbers, and that each has one master. */
export function checkTerminals(
  findings: Findings,
  table: FileTable,
): void {
  const infos = findings.read("tty-info", undefined) ?? [];
  const seen = new Set<number>();
  infos.forEach(({ id, type, pty }, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("tty-info"), number, field, why);
    if (seen.has(id)) wrong("id", `${id} is there twice`);
    seen.add(id);
    if (type !== TtyType.PTY) return;
    const index = pty?.index;
    if (index === undefined) wrong("pty", "is missing");
    else if (index >= TERMINALS || index !== id >> 1) {
      wrong("pty.index", `${index} is not the terminal of entry ${id}`);
    }
  });
  const masters = new Set(
    infos.filter(({ id, type }) => type === TtyType.PTY && (id & 1) === 1)
      .map(({ id }) => id),
  );
  const open = new Set<number>();
  // Slaves whose master is closed.
  const dead = new Set(
    infos.filter(({ type }) => type === TtyType.UNKNOWN).map(({ id }) => id),
  );
  table.each(fd_types.TTY, ({ tty }, number) => {
    if (tty === undefined) return;
    if (
      tty.regf_id === undefined &&
      (masters.has(tty.tty_info_id) || dead.has(tty.tty_info_id))
    ) findings.add(FILES, number, "tty.regf_id", "is missing");
    if (!masters.has(tty.tty_info_id)) return;
    if (open.has(tty.tty_info_id)) {
      const why = `${tty.tty_info_id} is the master of another file, too`;
      findings.add(FILES, number, "tty.tty_info_id", why);
    }
    open.add(tty.tty_info_id);
  });
  checkTerminalContents(findings, masters);
}

/** What is under way in terminals: no more than fits, and all lines of it. */
function checkTerminalContents(
  findings: Findings,
  masters: ReadonlySet<number>,
): void {
  const lengths = new Map<number, number>();
  (findings.read("tty-data", undefined) ?? []).forEach((entry, number) => {
    const { tty_id, data } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("tty-data"), number, field, why);
    if (lengths.has(tty_id)) wrong("tty_id", `${tty_id} is there twice`);
    lengths.set(tty_id, data.length);
    // The master of a slave is its number with the lowest bit set.
    if (!masters.has(tty_id | 1)) {
      wrong("tty_id", `${tty_id} is no terminal of tty-info.img`);
    }
    if (data.length > MOST_IN_TERMINAL) {
      wrong("data", `${data.length} bytes are more than a terminal can hold`);
    }
  });
  const pids = new Set(
    (findings.read("pstree", undefined) ?? []).map(({ pid }) => pid),
  );
  const seen = new Set<number>();
  (findings.read("ckpt-terminals", undefined) ?? []).forEach(
    (entry, number) => {
      const { index, lines, typed, echoes, mode = 0, without } = entry;
      const wrong = (field: string, why: string) =>
        findings.add(imageName("ckpt-terminals"), number, field, why);
      if (seen.has(index)) wrong("index", `${index} is there twice`);
      seen.add(index);
      if (!masters.has(index * 2 + 1)) {
        wrong("index", `${index} is no terminal of tty-info.img`);
      }
      const sum = lines.reduce((sum, { length }) => sum + length, 0);
      const held = lengths.get(index * 2) ?? 0;
      if (sum > held) {
        wrong("lines", `have ${sum} bytes, but ${held} are there`);
      }
      if (lines.some((line) => line.length === 0 && !line.ended_by_eof)) {
        wrong("lines", "one has no byte that ends it");
      }
      for (const [field, bytes] of Object.entries({ typed, echoes })) {
        if ((bytes?.length ?? 0) > MOST_IN_TERMINAL) {
          wrong(field, "has more bytes than a terminal can hold");
        }
      }
      if (mode > PERMISSIONS) {
        wrong("mode", `0${mode.toString(8)} is more than permissions`);
      }
      for (const pid of without) {
        if (!pids.has(pid)) wrong("without", `${pid} is not in pstree.img`);
      }
    },
  );
}

/** A ring of 4 KiB, and 64 KiB of buffers before it (tty_buffer.c). */
const MOST_IN_TERMINAL = 4096 + 65536;
