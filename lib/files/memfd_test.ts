import { assertEquals } from "@std/assert";
import { stat } from "../ffi/syscall.ts";
import type { memfd_inode_entry } from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import {
  dumpMemfdObject,
  F_SEAL,
  memfdName,
  memfdPageSize,
  memfdProblem,
  sealSteps,
} from "./memfd.ts";

Deno.test("the name of a memfd is in the link to it", () => {
  const cases: [string, string | undefined][] = [
    ["/memfd:a b (deleted)", "a b"],
    ["/memfd: (deleted)", ""],
    ["/memfd:x (deleted) (deleted)", "x (deleted)"],
    ["/memfd:two\nlines (deleted)", "two\nlines"],
    ["/memfd:x", undefined],
    ["/tmp/memfd:x (deleted)", undefined],
  ];
  for (const [link, name] of cases) assertEquals(memfdName(link), name);
});

Deno.test("a file with a path is no memfd", () => {
  assertEquals(memfdPageSize("/", stat("/")), undefined);
});

Deno.test("what a memfd cannot be is a problem", () => {
  const entry: memfd_inode_entry = dumpMemfdObject(
    5,
    "x",
    { ...stat("/"), mode: 0o100777, size: 4096n },
    F_SEAL.seal,
    4096,
  );
  assertEquals(memfdProblem(entry), undefined);
  assertEquals(memfdProblem({ ...entry, mode: undefined }), undefined);
  for (
    const part of [
      { name: "é".repeat(125) },
      { hugetlb_flag: 0 },
      // 2 MiB, which the size is no multiple of
      { hugetlb_flag: 21 << 26 },
      { size: 2n ** 63n },
      { seals: 0x40 },
      { mode: 0o40777 },
    ]
  ) {
    assertEquals(typeof memfdProblem({ ...entry, ...part }), "string");
  }
});

Deno.test("every seal is set once, and none before what it forbids", () => {
  const random = seededRandom(1);
  for (let i = 0; i < 200; i++) {
    const seals = Math.floor(random() * 64);
    const steps = sealSteps(seals);
    if (seals === F_SEAL.seal) {
      assertEquals(steps, undefined, "one that was made without seals");
      continue;
    }
    const { filled, mapped } = steps!;
    assertEquals(filled | mapped, seals);
    assertEquals(filled & mapped, 0);
    assertEquals(filled & F_SEAL.seal, 0, "no seal could follow");
    // Without F_SEAL_WRITE, it may still be mapped for writing.
    if ((seals & F_SEAL.write) === 0) {
      assertEquals(filled & F_SEAL.futureWrite, 0);
    }
    assertEquals(mapped & F_SEAL.write, 0, "private mappings only");
  }
});
