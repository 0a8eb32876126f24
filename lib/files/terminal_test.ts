import { assertEquals } from "@std/assert";
import { fd_types, type tty_info_entry, TtyType } from "../image/schema.gen.ts";
import { NO_OWNER } from "./file_table.ts";
import {
  dumpTerminal,
  infosOf,
  isHostMaster,
  isPty,
  type MasterState,
  slaveIndex,
  type Terminal,
  terminalsOf,
  termiosBytes,
} from "./terminal.ts";
import {
  controllingProblems,
  isControlledByOwn,
  mastersAmong,
  unreadTerminals,
} from "./terminals.ts";

const CHAR_DEVICE = 0o020000;

/** makedev(3). */
function device(major: number, minor: number): bigint {
  return BigInt(major << 8 | minor & 0xff | (minor & ~0xff) << 12);
}

function status(rdev: bigint) {
  const none = { dev: 7n, ino: 0n, nlink: 1n, uid: 0, gid: 0, size: 0n };
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
};

Deno.test("ends of pseudo terminals are told by their devices", () => {
  for (
    const [major, minor, expected] of [
      [5, 2, true],
      [136, 0, true],
      [143, 255, true],
      [5, 0, false],
      [4, 1, false],
      [144, 0, false],
    ] as const
  ) assertEquals(isPty(status(device(major, minor))), expected);
  assertEquals(isPty({ ...status(device(5, 2)), mode: 0o100000 }), false);
  assertEquals(slaveIndex(device(136, 7)), 7);
  assertEquals(slaveIndex(device(137, 3)), 259);
  assertEquals(isHostMaster("/dev/ptmx"), true);
  assertEquals(isHostMaster("/other/ptmx"), false);
});

Deno.test("modes go through an entry unchanged, packed as CRIU packs them", () => {
  const end: Terminal = {
    end: "master",
    index: 3,
    isExclusive: true,
    master: STATE,
  };
  const rdev = device(5, 2);
  const entry = dumpTerminal(end, { rdev, dev: 9n }, { uid: 1, gid: 5 });
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
    dumpTerminal({ ...end, end: "slave" }, { rdev, dev: 9n }, {
      uid: 1,
      gid: 5,
    }).id,
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
  const file = (id: number, tty_info_id: number) => ({
    type: fd_types.TTY,
    id,
    tty: { id, tty_info_id, flags: 2, fown: NO_OWNER, regf_id: 99 },
  });
  const files = [
    file(1, 7),
    file(2, 6),
    file(3, 8),
    file(4, 11),
    file(5, 2006),
  ];
  const infos = [info(6), info(7), info(8), info(11), info(2006, TtyType.CTTY)];
  const found = terminalsOf(files, infos);
  assertEquals(
    found.map(({ index, slave, masterFile }) => [
      index,
      slave?.id,
      masterFile.id,
    ]),
    [[3, 6, 1], [5, undefined, 4]],
  );
  assertEquals([...infosOf(found)], [7, 6, 11, 10]);
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
      terminal,
    })),
    // Only what is looked at.
  } as unknown as Parameters<typeof controllingProblems>[0][number];
}

Deno.test("who has no part in the terminal of its session is told, and a leader that is gone", () => {
  const master = { index: 3, master: STATE, unread: 0 };
  const controlled = device(136, 3);
  const masters = mastersAmong([user(10, 10, 0n, [master])]);
  assertEquals([...masters.keys()], [3]);
  assertEquals(isControlledByOwn(Number(controlled), masters), true);
  assertEquals(isControlledByOwn(Number(device(136, 4)), masters), false);
  const told = (...users: ReturnType<typeof user>[]) =>
    controllingProblems(users, masters).map(({ object }) => object);
  assertEquals(told(user(10, 10, 0n), user(40, 40, controlled)), []);
  assertEquals(
    told(user(40, 40, controlled), user(41, 40, 0n), user(42, 40, controlled)),
    ["task 41"],
  );
  assertEquals(told(user(41, 40, controlled)), ["the terminal /dev/pts/3"]);
});

Deno.test("bytes that wait in terminals of the tree are told", () => {
  const master = { index: 3, master: STATE, unread: 5 };
  assertEquals(
    unreadTerminals([user(10, 10, 0n, [master, { index: 9, unread: 4 }])])
      .map(({ object }) => object),
    ["descriptor 0 (/dev/ptmx) of task 10"],
  );
});
