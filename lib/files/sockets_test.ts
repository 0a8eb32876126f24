import { assertEquals, assertStrictEquals } from "@std/assert";
import { closeAll, openPidfd } from "../ffi/pidfd.ts";
import { addressOf, close, stat, syscall } from "../ffi/syscall.ts";
import { encodeAddress } from "./inet_address.ts";
import { UnixSocketsAtOnce } from "./sock_diag.ts";
import { AF_INET, AF_UNIX, IPPROTO_IP, SOCK } from "./socket_kind.ts";
import { setInt, setOption, SO, SOL_SOCKET } from "./sockopt.ts";
import { lookAtSockets, type SeenSocket } from "./sockets.ts";

const IP_TTL = 2;
const IP_ADD_MEMBERSHIP = 35;
const LOOPBACK = 0x0100007f;

/** Looks at sockets of the test's own, by their numbers. */
function look(fds: readonly number[]): (SeenSocket | undefined)[] {
  const pidfd = openPidfd(Deno.pid);
  try {
    const places = fds.map((fd) => {
      return { fd, ino: stat(`/proc/self/fd/${fd}`).ino };
    });
    const seen = lookAtSockets(pidfd, places, new UnixSocketsAtOnce());
    return fds.map((fd) => seen.get(fd));
  } finally {
    close(pidfd);
  }
}

function call(name: "bind" | "connect", fd: number, port: number): void {
  const address = encodeAddress(AF_INET, { port, words: [LOOPBACK], scope: 0 });
  const length = BigInt(address.length);
  syscall(name, BigInt(fd), addressOf(address), length);
}

Deno.test("of a socket that answers the same nothing is made again, any change is seen", () => {
  const fds = [1, 2, 3].map(() =>
    Number(syscall("socket", BigInt(AF_INET), BigInt(SOCK.DGRAM), 0n))
  );
  const ends = new Int32Array(2);
  const room = addressOf(new Uint8Array(ends.buffer));
  syscall("socketpair", BigInt(AF_UNIX), BigInt(SOCK.STREAM), 0n, room);
  fds.push(...ends);
  const [udp, other, member, left, right] = fds;
  const byte = new Uint8Array(1);
  // struct sock_filter that lets all through, and its struct sock_fprog.
  const code = Uint8Array.of(6, 0, 0, 0, 255, 255, 255, 255);
  const filter = new BigUint64Array([1n, addressOf(code)]);
  const group = Uint8Array.of(239, 1, 2, 3, 127, 0, 0, 1);
  const changes: [fds: number[], change: () => void][] = [
    [[udp], () => setInt(udp, SOL_SOCKET, SO.PRIORITY, 3)],
    [[udp], () => setInt(udp, IPPROTO_IP, IP_TTL, 9)],
    [[udp], () => call("bind", udp, 0)],
    [[udp], () => call("connect", udp, 9)],
    [[left], () => setInt(left, SOL_SOCKET, SO.RCVLOWAT, 5)],
    // What it has sent is told of the one, what it can read of the other.
    [
      [left, right],
      () => syscall("write", BigInt(left), addressOf(byte), 1n),
    ],
    [[left, right], () => syscall("shutdown", BigInt(left), 1n)],
    [[member], () => setOption(member, IPPROTO_IP, IP_ADD_MEMBERSHIP, group)],
    [
      [right],
      () =>
        setOption(
          right,
          SOL_SOCKET,
          SO.ATTACH_FILTER,
          new Uint8Array(filter.buffer),
        ),
    ],
  ];
  try {
    let before = look(fds);
    // Those of which more is asked are looked at anew each time.
    const apart = new Set<number>();
    for (const [changed, change] of changes) {
      change();
      const after = look(fds);
      fds.forEach((fd, i) => {
        const isSame = !changed.includes(fd) && !apart.has(fd);
        assertEquals(after[i] === before[i], isSame, `${change}: socket ${i}`);
      });
      before = after;
      if (changed.includes(member)) apart.add(member);
    }
    assertStrictEquals(look([other])[0], before[1]);
  } finally {
    closeAll(fds);
  }
});
