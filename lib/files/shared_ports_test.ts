import { assertEquals } from "@std/assert";
import { describeSharedPorts } from "./shared_ports.ts";

Deno.test("those of one port have the same number of a group, and keep their order", () => {
  const program = Uint8Array.of(6, 0, 0, 0, 1, 0, 0, 0);
  const seen = new Map([
    [11, { group: 0xffff8000n, index: 1, count: 2, program: undefined }],
    [12, { group: 0xffff9000n, index: 0, count: 1, program }],
    [13, { group: 0xffff8000n, index: 0, count: 2, program: undefined }],
    // Alone, and chosen by nobody.
    [14, { group: 0xffffa000n, index: 0, count: 1, program: undefined }],
  ]);
  assertEquals([...describeSharedPorts(seen)], [
    [11, { group: 0, index: 1, program: undefined }],
    [12, { group: 1, index: 0, program }],
    [13, { group: 0, index: 0, program: undefined }],
  ]);
});
