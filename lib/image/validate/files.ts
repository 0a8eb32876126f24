/** Checks open files, and what leads from one to another. */
import {
  type fanotify_file_entry,
  fd_types,
  type file_entry,
  mark_type,
  type memfd_inode_entry,
} from "../schema.gen.ts";
import { checkContents } from "./contents.ts";
import { FILE_MEMBERS, FILES, FileTable, type Wrong } from "./file_table.ts";
import type { Findings } from "./findings.ts";
import { checkGhosts, checkRemaps } from "./ghosts.ts";
import { checkPipes } from "./pipes.ts";
import { checkSockets } from "./sockets.ts";
import { checkTerminals } from "./terminals.ts";
import { checkHandle, checkWatches } from "./watches.ts";

const PATH_MAX = 4096;
const SUN_PATH_MAX = 108;
const O_CREAT_EXCL_NOCTTY_TRUNC = 0o1700;
const O_ACCMODE = 3;

/** Generic netlink gives its families groups of their own. */
const MOST_GROUP_WORDS = 64;

export function checkFiles(findings: Findings): FileTable {
  const table = new FileTable();
  const files = findings.require("files", undefined);
  if (files === undefined) return table;
  table.known = true;
  files.forEach((file, number) => {
    const wrong = (field: string, why: string) =>
      findings.add(FILES, number, field, why);
    if (!table.add(file)) {
      wrong("id", `${file.id} is there twice`);
    }
    checkMember(file, wrong);
  });
  const memfds = new Map(
    (findings.read("memfd", undefined) ?? []).map((inode) =>
      [inode.inode_id, inode] as const
    ),
  );
  for (const type of REFERRING) {
    table.each(type, (file, number) => {
      const wrong = (field: string, why: string) =>
        findings.add(FILES, number, field, why);
      checkReferences(findings, table, memfds, file, wrong);
    });
  }
  checkRemaps(findings, table);
  checkGhosts(findings);
  checkPipes(findings, table);
  checkWatches(findings, table);
  checkContents(findings, table);
  checkTerminals(findings, table);
  checkSockets(findings, table);
  return table;
}

function checkMember(file: file_entry, wrong: Wrong): void {
  const member = FILE_MEMBERS[file.type];
  if (member === undefined) {
    wrong("type", `${file.type} is no type of file`);
    return;
  }
  for (const other in file) {
    if (other === "type" || other === "id" || other === member) continue;
    wrong(other, `does not belong to a file of type ${file.type}`);
  }
  const content = file[member] as { id: number } | undefined;
  if (content === undefined) wrong(member, "is missing");
  else if (content.id !== file.id) {
    wrong(`${member}.id`, `${content.id} is not ${file.id}, that of the entry`);
  }
  if (content !== undefined) checkContent(file, wrong);
}

function checkContent(file: file_entry, wrong: Wrong): void {
  switch (file.type) {
    case fd_types.REG: {
      const { name, flags, ext } = file.reg!;
      checkRegular(name, flags, ext, wrong);
      break;
    }
    case fd_types.PIPE: {
      const { flags } = file.pipe!;
      if ((flags & O_ACCMODE) !== O_ACCMODE) break;
      wrong("pipe.flags", `0${flags.toString(8)} is no end of a pipe`);
      break;
    }
    case fd_types.TIMERFD: {
      const { clockid, vnsec, insec } = file.tfd!;
      // CLOCK_REALTIME, MONOTONIC, BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM.
      if (![0, 1, 7, 8, 9].includes(clockid)) {
        wrong("tfd.clockid", `${clockid} is no clock of timerfd_create(2)`);
      }
      if (vnsec >= 1_000_000_000n || insec >= 1_000_000_000n) {
        wrong("tfd", "has a thousand million nanoseconds or more");
      }
      break;
    }
    case fd_types.UNIXSK: {
      const { length } = file.usk!.name;
      if (length <= SUN_PATH_MAX) break;
      wrong("usk.name", `is ${length} bytes long, more than 108`);
      break;
    }
    case fd_types.INOTIFY:
      file.ify!.wd.forEach(({ f_handle }, i) =>
        checkHandle(f_handle, `ify.wd[${i}].f_handle`, wrong)
      );
      break;
    case fd_types.FANOTIFY:
      checkMarks(file.ffy!, wrong);
      break;
    case fd_types.NETLINKSK: {
      const { length } = file.nlsk!.groups;
      // CRIU takes one, and ckpt as many as the kernel has.
      if (length > MOST_GROUP_WORDS) {
        wrong("nlsk.groups", `has ${length} words`);
      }
    }
  }
}

function checkMarks({ mark }: fanotify_file_entry, wrong: Wrong): void {
  mark.forEach(({ type, ie, me }, i) => {
    const field = `ffy.mark[${i}]`;
    if (ie !== undefined) {
      checkHandle(ie.f_handle, `${field}.ie.f_handle`, wrong);
    }
    if (me?.path !== undefined && !me.path.startsWith("/")) {
      wrong(`${field}.me.path`, `"${me.path}" is no absolute path`);
    }
    if (
      (type === mark_type.INODE) !== (ie !== undefined) ||
      (type === mark_type.MOUNT) !== (me !== undefined)
    ) wrong(field, `is not as its type ${type} says`);
  });
}

function checkRegular(
  name: string,
  flags: number,
  external: boolean | undefined,
  wrong: Wrong,
): void {
  if (!external && !name.startsWith("/")) {
    wrong("reg.name", `"${name}" is no absolute path`);
  }
  if (name.length >= PATH_MAX) {
    wrong("reg.name", "is longer than a path can be");
  }
  if (flags & O_CREAT_EXCL_NOCTTY_TRUNC) {
    wrong("reg.flags", `0${flags.toString(8)} would act when opened again`);
  }
}

/** Files of these types name others. */
const REFERRING = [fd_types.FIFO, fd_types.TTY, fd_types.MEMFD] as const;

function checkReferences(
  findings: Findings,
  table: FileTable,
  memfds: ReadonlyMap<bigint, memfd_inode_entry>,
  { fifo, tty, memfd }: file_entry,
  wrong: Wrong,
): void {
  const path = (member: string, id: number | undefined) => {
    if (id === undefined || table.has(fd_types.REG, id)) return;
    wrong(`${member}.regf_id`, `${id} is no regular file`);
  };
  if (fifo !== undefined && fifo.regf_id === undefined) {
    wrong("fifo.regf_id", "is missing");
  }
  path("fifo", fifo?.regf_id);
  path("tty", tty?.regf_id);
  if (tty !== undefined) {
    const known = findings.read("tty-info", undefined) ?? [];
    if (!known.some((info) => info.id === tty.tty_info_id)) {
      wrong("tty.tty_info_id", `${tty.tty_info_id} is not in tty-info.img`);
    }
  }
  if (memfd !== undefined) {
    const inode = memfds.get(BigInt(memfd.inode_id));
    if (inode === undefined) {
      wrong("memfd.inode_id", `${memfd.inode_id} is not in memfd.img`);
    } else if (inode.size > 0n) table.sharedMemory.add(BigInt(inode.shmid));
  }
}
