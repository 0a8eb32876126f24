/** Network interfaces, by their names and numbers (netdevice(7)). */
import { addressOf, close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import { AF_INET, SOCK } from "./socket_kind.ts";

const SIOCGIFNAME = 0x8910n;
const SIOCGIFMTU = 0x8921n;
const SIOCGIFINDEX = 0x8933n;
const IFREQ = 40;
const IFNAMSIZ = 16;

/** Undefined: there is none with this number. */
export function interfaceName(fd: number, index: number): string | undefined {
  const request = new Uint8Array(IFREQ);
  new DataView(request.buffer).setInt32(IFNAMSIZ, index, true);
  try {
    syscall("ioctl", BigInt(fd), SIOCGIFNAME, addressOf(request));
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  return new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
}

/** @throws SyscallError ENODEV */
export function interfaceIndex(fd: number, name: string): number {
  return ask(fd, name, SIOCGIFINDEX);
}

/**
 * How many bytes its packets have at most.
 *
 * @throws SyscallError ENODEV
 */
export function interfaceMtu(fd: number, name: string): number {
  return ask(fd, name, SIOCGIFMTU);
}

function ask(fd: number, name: string, what: bigint): number {
  const request = new Uint8Array(IFREQ);
  request.set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
  syscall("ioctl", BigInt(fd), what, addressOf(request));
  return new DataView(request.buffer).getInt32(IFNAMSIZ, true);
}

/** Those that sockets of an image name, by these names; only such that exist. */
export function interfacesOf(
  sockets: Iterable<{
    readonly entry: { readonly ifname?: string | undefined };
    readonly extension: {
      readonly memberships: readonly { readonly interface: string }[];
      readonly interface?: string | undefined;
    };
  }>,
): ReadonlyMap<string, number> {
  const names = new Set(
    [...sockets].flatMap(({ entry: { ifname }, extension }) => [
      ...ifname === undefined ? [] : [ifname],
      ...extension.interface === undefined ? [] : [extension.interface],
      ...extension.memberships.map((one) => one.interface),
    ]),
  );
  const found = new Map<string, number>();
  if (names.size === 0) return found;
  withSocket((fd) => {
    for (const name of names) {
      const index = ifThere(() => interfaceIndex(fd, name));
      if (index !== undefined) found.set(name, index);
    }
  });
  return found;
}

/** By its name or number. */
export function hasInterface(which: string | number): boolean {
  return withSocket((fd) =>
    typeof which === "number"
      ? interfaceName(fd, which)
      : ifThere(() => interfaceIndex(fd, which))
  ) !== undefined;
}

function ifThere<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

function withSocket<T>(use: (fd: number) => T): T {
  const fd = Number(
    syscall(
      "socket",
      BigInt(AF_INET),
      BigInt(SOCK.DGRAM | O.CLOEXEC),
      0n,
    ),
  );
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}
