import { assertEquals } from "@std/assert";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";
import { ringImageProblem, ringProblem } from "./io_uring.ts";

const SQPOLL = 0x2;
const R_DISABLED = 0x40;
const SINGLE_ISSUER = 0x1000;
const NO_MMAP = 0x4000;
const REGISTERED_FD_ONLY = 0x8000;

function entry(more: Partial<ckpt_ring_entry>): ckpt_ring_entry {
  return {
    id: 1,
    pid: 1,
    flags: 0,
    requests: 8,
    results: 16,
    taken: 5,
    given: 4,
    files: [],
    buffers: [],
    registered_by: [],
    ...more,
  };
}

Deno.test("a ring that can be made again has no problem", () => {
  assertEquals(ringProblem({ flags: 0 }), undefined);
  assertEquals(ringImageProblem(entry({})), undefined);
});

Deno.test("a ring of a kind that is not known is refused", () => {
  for (const flags of [0x400000, REGISTERED_FD_ONLY]) {
    const why = `its flags 0x${flags.toString(16)} are not known`;
    assertEquals(ringProblem({ flags }), why);
    assertEquals(ringImageProblem(entry({ flags })), why);
  }
});

Deno.test("a ring comes with the thread and the memory that its kind has", () => {
  const poller = { number: 7, idle: 20, credentials: 1 };
  const memory = {
    counters: 0x1000n,
    counters_length: 4096,
    entries: 0x2000n,
    entries_length: 4096,
  };
  const disabled = SINGLE_ISSUER | R_DISABLED;
  for (
    const more of [
      { flags: SINGLE_ISSUER, thread: 1 },
      { flags: disabled, taken: 0, given: 0 },
      { flags: SQPOLL, poller },
      { flags: NO_MMAP, memory },
    ]
  ) assertEquals(ringImageProblem(entry(more)), undefined);
  for (
    const more of [
      { flags: SINGLE_ISSUER },
      { flags: SQPOLL },
      { flags: 0, poller },
      { flags: NO_MMAP },
      { flags: 0, memory },
      { flags: NO_MMAP, memory: { ...memory, counters_length: 0 } },
      { flags: NO_MMAP, memory: { ...memory, entries_length: 16 << 20 } },
    ]
  ) assertEquals(typeof ringImageProblem(entry(more)), "string");
});

Deno.test("what cannot be registered again is named", () => {
  assertEquals(
    ringProblem({ flags: 0, unknown: ["restrictions", "personalities"] }),
    "it has restrictions, personalities, which cannot be put back",
  );
});

Deno.test("sizes that are none of a ring are found in an image", () => {
  for (
    const more of [
      { requests: 0 },
      { requests: 3 },
      { requests: 65536 },
      { results: 131072 },
      { flags: R_DISABLED },
    ]
  ) {
    assertEquals(typeof ringImageProblem(entry(more)), "string");
  }
});
