import { assertEquals } from "@std/assert";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";
import { ringImageProblem, ringProblem } from "./io_uring.ts";

const SQPOLL = 0x2;
const R_DISABLED = 0x40;
const SINGLE_ISSUER = 0x1000;

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
    ...more,
  };
}

Deno.test("a ring that can be made again has no problem", () => {
  assertEquals(ringProblem({ flags: 0 }), undefined);
  assertEquals(ringImageProblem(entry({})), undefined);
});

Deno.test("a ring of a kind that cannot be made again is refused by what it is", () => {
  for (
    const [flags, why] of [
      [
        SQPOLL,
        "a thread of the kernel takes its requests (IORING_SETUP_SQPOLL)",
      ],
      [
        SINGLE_ISSUER,
        "only one thread may use it (IORING_SETUP_SINGLE_ISSUER)",
      ],
      [0x400000, "its flags 0x400000 are not known"],
    ] as const
  ) {
    assertEquals(ringProblem({ flags }), why);
    assertEquals(ringImageProblem(entry({ flags })), why);
  }
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
