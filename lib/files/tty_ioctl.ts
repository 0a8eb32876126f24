/** Requests to terminals: ioctl_tty(2). */
import { EIO } from "../ffi/errno.ts";
import { addressOf, syscall, SyscallError } from "../ffi/syscall.ts";

export const IOCTL = {
  FIONREAD: 0x541b,
  TCFLSH: 0x540b,
  TCGETS2: 0x802c542a,
  TCSETS2: 0x402c542b,
  TCXONC: 0x540a,
  TIOCEXCL: 0x540c,
  TIOCGETD: 0x5424,
  TIOCGDEV: 0x80045432,
  TIOCGEXCL: 0x80045440,
  TIOCGLCKTRMIOS: 0x5456,
  TIOCGPGRP: 0x540f,
  TIOCGPKT: 0x80045438,
  TIOCGPTLCK: 0x80045439,
  TIOCGPTPEER: 0x5441,
  TIOCGPTN: 0x80045430,
  TIOCGSID: 0x5429,
  TIOCGWINSZ: 0x5413,
  TIOCNOTTY: 0x5422,
  TIOCPKT: 0x5420,
  TIOCSCTTY: 0x540e,
  TIOCSLCKTRMIOS: 0x5457,
  TIOCSPGRP: 0x5410,
  TIOCSPTLCK: 0x40045431,
  TIOCSTI: 0x5412,
  TIOCSWINSZ: 0x5414,
} as const;

export function structure(
  fd: number,
  request: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  syscall("ioctl", BigInt(fd), BigInt(request), addressOf(bytes));
  return bytes;
}

/** ioctl(2) with a structure, or none. */
export function request(
  fd: number,
  number: number,
  argument?: Uint8Array<ArrayBuffer>,
): void {
  const address = argument === undefined ? 0n : addressOf(argument);
  syscall("ioctl", BigInt(fd), BigInt(number), address);
}

/** An int in memory. */
export function int(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Int32Array.of(value).buffer);
}

export function number(fd: number, request: number): number {
  return new DataView(structure(fd, request, 4).buffer).getInt32(0, true);
}

/** It controls no session: ENOTTY. */
export function numberOr0(fd: number, request: number): number {
  try {
    return number(fd, request);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno === EIO) throw error;
    return 0;
  }
}
