import { assertEquals } from "@std/assert";
import { parseIgmp, parseIgmp6 } from "./multicast.ts";

Deno.test("groups of IPv4 are read with their interfaces", () => {
  const text =
    "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
    "1\tlo        :     2      V3\n" +
    "\t\t\t\t030201EF     1 0:00000000\t\t0\n" +
    "\t\t\t\t010000E0     1 0:00000000\t\t0\n" +
    "2\teth0      :     1      V3\n" +
    "\t\t\t\t010000E0     1 0:00000000\t\t0\n";
  assertEquals(
    parseIgmp(text).map(({ interface: name, index, group }) =>
      `${index} ${name} ${group.join(".")}`
    ),
    ["1 lo 239.1.2.3", "1 lo 224.0.0.1", "2 eth0 224.0.0.1"],
  );
  assertEquals(parseIgmp(""), []);
});

Deno.test("groups of IPv6 are read with their interfaces", () => {
  const text =
    "1    lo              ff050000000000000000000000000123     1 00000004 0\n" +
    "12   wlan0           ff020000000000000000000000000001     2 0000000C 0\n";
  assertEquals(
    parseIgmp6(text).map(({ interface: name, index, group }) =>
      `${index} ${name} ${group[0].toString(16)} ${group[1]} ${group[15]}`
    ),
    ["1 lo ff 5 35", "12 wlan0 ff 2 1"],
  );
});
