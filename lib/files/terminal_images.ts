/** The pseudo terminals that an image tells of: what a restore has to make. */
import {
  type ckpt_terminal_entry,
  type file_entry,
  type reg_file_entry,
  type tty_data_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";
import { infoId, slavePath, TERMINALS } from "./terminal.ts";

/** A pseudo terminal of an image whose master is open. */
export interface TerminalImage {
  readonly index: number;
  /** The path of its slave. */
  readonly path: string;
  readonly master: tty_info_entry;
  /** Undefined: it was never open. */
  readonly slave: tty_info_entry | undefined;
  /** The file that is the master, and that it is opened by. */
  readonly masterFile: file_entry;
  readonly ptmx: reg_file_entry;
  /** What was under way in it, and what CRIU does not tell. */
  readonly toSlave: Uint8Array | undefined;
  readonly toMaster: Uint8Array | undefined;
  readonly extension: ckpt_terminal_entry | undefined;
}

/** A slave of an image whose master is closed. */
export interface DeadSlave {
  /** The number that it has, and the file that led to it. */
  readonly index: number;
  readonly path: reg_file_entry;
  readonly file: file_entry;
}

/** The terminals that a restore has to make. */
export interface TerminalImages {
  readonly all: readonly TerminalImage[];
  readonly dead: readonly DeadSlave[];
  /** Ids of files that are /dev/tty, and whose session has to open it. */
  readonly own: ReadonlyMap<number, number>;
}

/** What is read of images: tty-info.img, tty-data.img, ckpt-terminals.img. */
interface TerminalEntries {
  readonly infos: readonly tty_info_entry[];
  readonly data: readonly tty_data_entry[];
  readonly extensions: readonly ckpt_terminal_entry[];
}

export function terminalsOf(
  files: ReadonlyMap<number, file_entry>,
  { infos, data, extensions }: TerminalEntries,
): TerminalImages {
  const byId = new Map(infos.map((info) => [info.id, info]));
  const bytes = new Map(data.map(({ tty_id, data }) => [tty_id, data]));
  const byIndex = new Map(extensions.map((one) => [one.index, one]));
  const infoOf = ({ tty }: file_entry) => tty && byId.get(tty.tty_info_id);
  const open = [...files.values()].filter(({ tty }) => tty !== undefined);
  const all = open.flatMap((file): TerminalImage[] => {
    const master = infoOf(file);
    const index = master?.pty?.index;
    if (
      index === undefined || master?.type !== TtyType.PTY ||
      master.id !== infoId(index, "master")
    ) return [];
    const ptmx = files.get(file.tty!.regf_id!)!.reg!;
    const slaveId = infoId(index, "slave");
    return [{
      index,
      path: slavePath(ptmx.name, index),
      master,
      slave: byId.get(slaveId),
      masterFile: file,
      ptmx,
      toSlave: bytes.get(slaveId),
      toMaster: bytes.get(master.id),
      extension: byIndex.get(index),
    }];
  });
  const sessions = new Set(all.map(({ master: { sid } }) => sid));
  return {
    all,
    dead: open.flatMap((file) => {
      const info = infoOf(file);
      return info?.type === TtyType.UNKNOWN && info.id >= 4 * TERMINALS
        ? [{
          index: info.id / 2 - 2 * TERMINALS,
          path: files.get(file.tty!.regf_id!)!.reg!,
          file,
        }]
        : [];
    }),
    own: new Map(
      open.flatMap((file) => {
        const { type, sid } = infoOf(file) ?? {};
        return type === TtyType.CTTY && sid !== undefined && sid !== 0 &&
            sessions.has(sid)
          ? [[file.id, sid]]
          : [];
      }),
    ),
  };
}

/** Files that are ends of these terminals: nobody has to give them. */
export function filesOfTerminals(
  files: Iterable<file_entry>,
  { all, dead, own }: TerminalImages,
): Set<number> {
  const infos = new Set(
    all.flatMap(({ index }) => [
      infoId(index, "master"),
      infoId(index, "slave"),
    ]),
  );
  return new Set([
    ...[...files].flatMap(({ id, tty }) =>
      tty !== undefined && infos.has(tty.tty_info_id) ? [id] : []
    ),
    ...dead.map(({ file }) => file.id),
    ...own.keys(),
  ]);
}
