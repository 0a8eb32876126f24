/** How processes get at the terminal that controls their session. */
import type { Argument, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { IOCTL } from "./tty_ioctl.ts";

/**
 * Adds an ioctl(2) on a slave, which is open only for this: for who has none,
 * or a controlling terminal is not set by its number.
 */
function onSlave(
  program: Program,
  path: string,
  request: number,
  argument: Argument,
  purpose: string,
): void {
  const fd = program.call(
    "openat",
    [
      AT_FDCWD,
      program.text(path),
      O.RDWR | O.NOCTTY | O.NONBLOCK | O.CLOEXEC,
      0,
    ],
    `opening ${path}`,
  );
  program.call("ioctl", [fd, request, argument], purpose);
  program.call("close", [fd], `closing ${path}`);
}

/**
 * By the leader of a session, before it has children in it: they inherit the
 * terminal by fork(2), and cannot get it in another way.
 */
export function takeControl(program: Program, path: string): void {
  onSlave(program, path, IOCTL.TIOCSCTTY, 0, `taking control of ${path}`);
}

/** By a member of a session that is not its leader: the others keep theirs. */
export function giveUpControl(program: Program, path: string): void {
  onSlave(program, path, IOCTL.TIOCNOTTY, 0, `giving up ${path}`);
}

/** By a member of the session, when the group exists. */
export function setForeground(
  program: Program,
  path: string,
  group: number,
): void {
  const argument = program.reserve(4);
  program.setInt32(argument, 0, group);
  const purpose = `bringing group ${group} to the foreground of ${path}`;
  onSlave(program, path, IOCTL.TIOCSPGRP, argument, purpose);
}
