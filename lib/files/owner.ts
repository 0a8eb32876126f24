/**
 * Who gets signals about a file: F_SETOWN and F_SETSIG (fcntl(2)). A property
 * of the open file description, so it is read from a duplicate.
 */
import {
  type Program,
  type Purpose,
  type Result,
  textOf,
} from "../ffi/program.ts";
import { addressOf, syscall } from "../ffi/syscall.ts";
import type { fown_entry } from "../image/schema.gen.ts";
import { NO_OWNER } from "./file_table.ts";

const F_SETSIG = 10;
const F_GETSIG = 11;
const F_SETOWN_EX = 15;
const F_GETOWN_EX = 16;
const F_GETOWNER_UIDS = 17;

/** @param fd a descriptor of ckpt's own for the description */
export function readOwner(fd: number): fown_entry {
  const owner = new Int32Array(2);
  fcntl(fd, F_GETOWN_EX, owner);
  const signum = Number(
    syscall("fcntl", BigInt(fd), BigInt(F_GETSIG)),
  );
  if (owner[1] === 0 && signum === 0) return NO_OWNER;
  const uids = new Int32Array(2);
  fcntl(fd, F_GETOWNER_UIDS, uids);
  return {
    uid: uids[0] >>> 0,
    euid: uids[1] >>> 0,
    signum,
    pid_type: owner[0],
    pid: owner[1],
  };
}

function fcntl(
  fd: number,
  command: number,
  argument: Int32Array<ArrayBuffer>,
): void {
  const bytes = new Uint8Array(argument.buffer);
  // The third argument of fcntl is the pointer.
  syscall(
    "fcntl",
    BigInt(fd),
    BigInt(command),
    addressOf(bytes),
  );
}

/**
 * Sets the owner of an open file again. The kernel notes the user ids of the
 * one who sets it, so they are borrowed for the moment.
 */
export function restoreOwner(
  program: Program,
  fd: number | Result,
  owner: fown_entry,
  name: Purpose,
): void {
  if (owner.signum !== 0) {
    program.call(
      "fcntl",
      [fd, F_SETSIG, owner.signum],
      `setting the signal of ${textOf(name)}`,
    );
  }
  if (owner.pid === 0) return;
  const borrows = owner.uid !== 0 || owner.euid !== 0;
  if (borrows) {
    // The real, effective and saved ids; the saved one keeps root reachable.
    program.call(
      "setresuid",
      [owner.uid, owner.euid, 0],
      `borrowing the user ids for the owner of ${textOf(name)}`,
    );
  }
  const argument = program.reserve(8);
  program.setInt32(argument, 0, owner.pid_type);
  program.setInt32(argument, 4, owner.pid);
  program.call(
    "fcntl",
    [fd, F_SETOWN_EX, argument],
    `setting the owner of ${textOf(name)}`,
  );
  if (borrows) {
    program.call("setresuid", [0, 0, 0], "taking the user ids of root again");
  }
}
