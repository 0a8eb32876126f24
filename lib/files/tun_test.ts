import { assertEquals, assertMatch } from "@std/assert";
import { stat } from "../ffi/syscall.ts";
import { describeTun, isTun, type SeenTun, tunProblem } from "./tun.ts";

const SEEN: SeenTun = {
  name: "tun0",
  // IFF_TUN, IFF_PERSIST, and that no filter is attached
  flags: 0x1801,
  headerSize: 10,
  sendBuffer: 0x7fffffff,
  littleEndian: false,
  bigEndian: false,
  offloads: 1,
  hasFilter: false,
  isHere: true,
  hasUnread: false,
};

Deno.test("another device is no network device", () => {
  assertEquals(isTun(stat("/dev/null")), false);
});

Deno.test("what cannot be attached again is told with its reason", () => {
  const table: [Partial<SeenTun>, RegExp | undefined][] = [
    [{}, undefined],
    [{ name: undefined }, /is no queue of a network device/],
    [{ isHere: false }, /another network namespace/],
    [{ hasFilter: true }, /TUNATTACHFILTER/],
  ];
  for (const [part, why] of table) {
    const problem = tunProblem({ ...SEEN, ...part });
    if (why === undefined) assertEquals(problem, undefined);
    else assertMatch(problem!.why, why);
  }
});

Deno.test("the flag that stands for two things is told by the network", () => {
  const [bare, headed] = [true, false].map((noPi) =>
    describeTun(SEEN, 7, noPi, undefined)
  );
  assertEquals([bare.flags, bare.no_pi, bare.id], [0x801, true, 7]);
  assertEquals([headed.flags, headed.no_pi], [0x801, false]);
});
