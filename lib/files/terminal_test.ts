import { assertEquals } from "@std/assert";
import {
  fd_types,
  type file_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";
import { NO_OWNER } from "./file_table.ts";
import {
  dumpDeadSlave,
  dumpTerminal,
  isPty,
  type MasterState,
  slaveIndex,
  slavePath,
  type Terminal,
} from "./terminal.ts";
import { filesOfTerminals, terminalsOf } from "./terminal_images.ts";
import { termiosBytes } from "./termios.ts";
import {
  controllingProblems,
  mastersAmong,
  seenMasters,
  type TerminalUser,
  unreadTerminals,
  withoutTheirTerminal,
} from "./terminals.ts";

const CHAR_DEVICE = 0o020000;

/** makedev(3). */
function device(major: number, minor: number): bigint {
  return BigInt(major << 8 | minor & 0xff | (minor & ~0xff) << 12);
}

function status(rdev: bigint) {
  const none = {
    dev: 7n,
    ino: 0n,
    nlink: 1n,
    uid: 0,
    gid: 0,
    size: 0n,
    allocated: 0n,
  };
  return { ...none, mode: CHAR_DEVICE, rdev };
}

const STATE: MasterState = {
  lineDiscipline: 0,
  termios: Uint8Array.from({ length: 44 }, (_, i) => i + 1),
  lockedTermios: Uint8Array.from({ length: 36 }, (_, i) => 200 - i),
  windowSize: new Uint8Array(Uint16Array.of(24, 80, 640, 480).buffer),
  packets: true,
  isLocked: false,
  session: 40,
  foreground: 41,
  isHungUp: false,
  slave: {
    path: "/dev/pts/3",
    status: { ...status(device(136, 3)), uid: 1, gid: 5 },
  },
};

Deno.test("ends of pseudo terminals are told by their devices", () => {
  for (
    const [major, minor, expected] of [
      [5, 2, true],
      [136, 0, true],
      [143, 255, true],
      [5, 0, true],
      [4, 1, false],
      [144, 0, false],
    ] as const
  ) assertEquals(isPty(status(device(major, minor))), expected);
  assertEquals(isPty({ ...status(device(5, 2)), mode: 0o100000 }), false);
  assertEquals(slaveIndex(device(136, 7)), 7);
  assertEquals(slaveIndex(device(137, 3)), 259);
  assertEquals(slaveIndex(device(4, 3)), undefined);
  assertEquals(slavePath("/dev/ptmx", 3), "/dev/pts/3");
  assertEquals(slavePath("/dev/pts/ptmx", 3), "/dev/pts/3");
  assertEquals(slavePath("/other/ptmx", 3), "/other/3");
});

Deno.test("modes go through an entry unchanged, packed as CRIU packs them", () => {
  const end: Terminal = {
    end: "master",
    index: 3,
    isExclusive: true,
    master: STATE,
  };
  const rdev = device(5, 2);
  const entry = dumpTerminal(end, { rdev, dev: 9n });
  const { termios, termios_locked, ...rest } = entry;
  assertEquals(rest, {
    id: 7,
    type: TtyType.PTY,
    locked: false,
    exclusive: true,
    packet_mode: true,
    sid: 40,
    pgrp: 41,
    rdev: 1282,
    dev: 9,
    winsize: { ws_row: 24, ws_col: 80, ws_xpixel: 640, ws_ypixel: 480 },
    pty: { index: 3 },
    uid: 1,
    gid: 5,
  });
  assertEquals(termiosBytes(termios!), STATE.termios);
  assertEquals(
    termiosBytes(termios_locked!).subarray(0, 36),
    STATE.lockedTermios,
  );
  assertEquals(termios!.c_cc.length, 19);
  assertEquals(termios!.c_cc[0], 0x15141312);
  assertEquals(
    dumpTerminal({ ...end, end: "slave" }, { rdev, dev: 9n }).id,
    6,
  );
});

Deno.test("terminals of an image are those with a master", () => {
  const info = (
    id: number,
    type: TtyType = TtyType.PTY,
  ): tty_info_entry => ({
    id,
    type,
    locked: false,
    exclusive: false,
    packet_mode: false,
    sid: 0,
    pgrp: 0,
    rdev: 0,
    ...type === TtyType.PTY && { pty: { index: id >> 1 } },
  });
  const path = { id: 99, flags: 0, pos: 0n, fown: NO_OWNER, build_id: [] };
  const ptmx: file_entry = {
    type: fd_types.REG,
    id: 99,
    reg: { ...path, name: "/dev/ptmx" },
  };
  const file = (id: number, tty_info_id: number): file_entry => ({
    type: fd_types.TTY,
    id,
    tty: { id, tty_info_id, flags: 2, fown: NO_OWNER, regf_id: 99 },
  });
  const dead = dumpDeadSlave(4, { rdev: device(136, 4), dev: 9n });
  const files = new Map(
    [
      ptmx,
      file(1, 7),
      file(2, 6),
      file(3, 8),
      file(4, 11),
      file(5, 2012),
      file(6, dead.id),
      file(7, 2014),
    ].map((file) => [file.id, file]),
  );
  const infos = [
    info(6),
    { ...info(7), sid: 40 },
    info(8),
    info(11),
    { ...info(2012, TtyType.CTTY), sid: 40 },
    { ...info(2014, TtyType.CTTY), sid: 41 },
    dead,
  ];
  const found = terminalsOf(files, {
    infos,
    data: [{ tty_id: 6, data: Uint8Array.of(1) }],
    extensions: [{ index: 5, lines: [], without: [], mode: 0o600 }],
  });
  assertEquals(
    found.all.map(({ index, path, slave, masterFile, toSlave, extension }) => [
      index,
      path,
      slave?.id,
      masterFile.id,
      toSlave?.length,
      extension?.mode,
    ]),
    [
      [3, "/dev/pts/3", 6, 1, 1, undefined],
      [5, "/dev/pts/5", undefined, 4, undefined, 0o600],
    ],
  );
  assertEquals(found.dead.map(({ index, file }) => [index, file.id]), [[4, 6]]);
  assertEquals([...found.own], [[5, 40]]);
  assertEquals(
    [...filesOfTerminals(files.values(), found)].sort(),
    [1, 2, 4, 5, 6],
  );
});

function user(
  pid: number,
  session: number,
  ttyNr: bigint,
  terminals: object[] = [],
) {
  return {
    pid,
    stat: { session, ttyNr: Number(ttyNr) },
    descriptors: terminals.map((terminal, fd) => ({
      fd,
      link: "/dev/ptmx",
      status: { mode: 0o20666 },
      terminal,
    })),
    // Only what is looked at.
  } as unknown as TerminalUser;
}

Deno.test("who does not have the terminal of its session is known, and a leader that is gone is told", () => {
  const master = { index: 3, end: "master", master: STATE, unread: 0 };
  const controlled = device(136, 3);
  const masters = mastersAmong([user(10, 10, 0n, [master])]);
  assertEquals([...masters.keys()], [3]);
  const without = (...users: ReturnType<typeof user>[]) =>
    withoutTheirTerminal(users, masters).get(3);
  assertEquals(without(user(10, 10, 0n), user(40, 40, controlled)), []);
  assertEquals(
    without(
      user(40, 40, controlled),
      user(41, 40, 0n),
      user(42, 40, controlled),
    ),
    [41],
  );
  const told = (...users: ReturnType<typeof user>[]) =>
    controllingProblems(users, masters).map(({ object }) => object);
  assertEquals(told(user(40, 40, controlled), user(41, 40, 0n)), []);
  assertEquals(told(user(41, 40, controlled)), ["the terminal /dev/pts/3"]);
});

Deno.test("a terminal is known by its first master, and whether it had a slave", () => {
  const master = { end: "master", master: STATE, unread: 0 };
  const users = [
    user(10, 10, 0n, [{ ...master, index: 3 }, { ...master, index: 4 }]),
    user(11, 10, 0n, [
      { ...master, index: 3 },
      { end: "slave", index: 4 },
      { end: "own", index: 3 },
    ]),
  ];
  assertEquals(
    seenMasters(users).map(({ index, place, hadSlave }) => [
      index,
      place,
      hadSlave,
    ]),
    [[3, { pid: 10, fd: 0 }, false], [4, { pid: 10, fd: 1 }, true]],
  );
});

Deno.test("bytes that wait in terminals of the tree are told where nobody can look", () => {
  const master = { index: 3, end: "master", master: STATE, unread: 5 };
  const [{ object, why }, ...others] = unreadTerminals([
    user(10, 10, 0n, [master, { index: 9, unread: 4 }]),
  ], "bpf: EPERM");
  assertEquals(object, "descriptor 0 (/dev/ptmx) of task 10");
  assertEquals(
    why.endsWith(
      "5 bytes that nobody has read yet, which ckpt " +
        "cannot look up in the kernel: bpf: EPERM",
    ),
    true,
  );
  assertEquals(others, []);
});
