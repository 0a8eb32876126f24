import { assert, assertEquals } from "@std/assert";
import { NetlinkSocket } from "../files/netlink.ts";
import {
  attributesOf,
  decodeAddress,
  decodeLink,
  decodeRoute,
  decodeRule,
  ROUTE_MESSAGE,
} from "./rtnetlink.ts";

const NETLINK_ROUTE = 0;

Deno.test("the kernel's own answers are understood", () => {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const links = route.dump(ROUTE_MESSAGE.getLink).map(decodeLink);
  const loopback = links.find(({ index }) => index === 1);
  assertEquals(loopback?.name, "lo");
  assert(loopback!.mtu >= 1280);
  const rules = route.dump(ROUTE_MESSAGE.getRule).map(decodeRule);
  assert(rules.some(({ isDefault }) => isDefault));
  for (const address of route.dump(ROUTE_MESSAGE.getAddress)) {
    assert(links.some(({ index }) => index === decodeAddress(address).index));
  }
});

/** struct rtmsg, and a destination. */
function routeTo(
  protocol: number,
  destination: number[],
): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(12 + 8);
  body.set([2, 24, 0, 0, 254, protocol]);
  body.set([8, 0, 1, 0, ...destination], 12);
  return body;
}

Deno.test("routes of the kernel are told from others", () => {
  assertEquals(decodeRoute({ body: routeTo(2, [127, 0, 0, 0]) }), {
    isMadeByKernel: true,
    text: "127.0.0.0/24",
  });
  assertEquals(
    decodeRoute({ body: routeTo(3, [10, 1, 2, 0]) }).isMadeByKernel,
    false,
  );
});

Deno.test("rules that select something, or lead elsewhere, are no default", () => {
  const rule = (source: number, table: number) => {
    const body = new Uint8Array(12 + 8);
    body.set([2, 0, source, 0, table, 0, 0, 1]);
    body.set([8, 0, 6, 0, 0xfe, 0x7f, 0, 0], 12);
    return decodeRule({ body }).isDefault;
  };
  assertEquals([rule(0, 254), rule(8, 254), rule(0, 7)], [true, false, false]);
});

Deno.test("attributes that go beyond their message are left out", () => {
  const body = Uint8Array.of(8, 0, 1, 0, 1, 2, 3, 4, 200, 0, 2, 0, 1);
  assertEquals([...attributesOf(body, 0).keys()], [1]);
});
