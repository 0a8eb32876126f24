import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import {
  describeRings,
  inheritedRings,
  parseRing,
  restoreRings,
  ringProblem,
} from "./aio.ts";
import type { Vma } from "./vma.ts";

function area(start: bigint, length: bigint, status: number): vma_entry {
  const nothing = { pgoff: 0n, shmid: 0n, prot: 3, flags: 1, fd: -1n };
  return { start, end: start + length, status, ...nothing };
}

/** As aio_setup_ring of fs/aio.c counts: the slots that fit whole pages. */
function slotsFor(requests: number): { slots: number; length: number } {
  const wanted = 32 + 32 * (2 * requests + 2);
  const length = Math.ceil(wanted / 4096) * 4096;
  return { slots: Math.floor((length - 32) / 32), length };
}

Deno.test("for as many requests as are told the kernel makes a ring of the same length", () => {
  for (let requests = 1; requests < 5000; requests += 7) {
    const { slots, length } = slotsFor(requests);
    const [ring] = describeRings([
      area(0x1000n, BigInt(length), VMA_STATUS.AIORING),
      area(0x100000n, 4096n, VMA_STATUS.REGULAR),
    ]);
    assertEquals(ring.id, 0x1000n);
    assertEquals(ring.ring_len, length);
    assertEquals(slotsFor(ring.nr_req), { slots, length });
  }
});

Deno.test("what is no ring is seen", () => {
  const header = new Uint32Array([3, 127, 5, 126, 0xa10a10a1, 1, 0, 32]);
  const state = parseRing(new Uint8Array(header.buffer), 8192n);
  assertEquals(state, { slots: 127, head: 5, tail: 126, offset: 8192n });
  const ring = area(0x1000n, 4096n, VMA_STATUS.AIORING);
  assertEquals(ringProblem(ring, state), undefined);
  for (const change of [{ slots: 128 }, { head: 127 }, { tail: 4000 }]) {
    assertEquals(
      ringProblem(ring, { ...state, ...change })?.startsWith("it is no ring"),
      true,
    );
  }
});

Deno.test("as many requests end as the ring was ahead, never more at a time than there are free slots", () => {
  for (const tail of [0, 1, 15, 16, 126]) {
    const program = new Program();
    const ring = area(0x7000n, 4096n, VMA_STATUS.AIORING);
    const aios = describeRings([ring]);
    const state = { slots: 127, head: 7, tail, offset: 0n };
    restoreRings(
      program,
      // deno-lint-ignore no-explicit-any
      { vmas: [ring], aios } as any,
      new Map([[0x7000n, state]]),
      9,
    );
    // Opening, preparing, closing; making, loading, moving, filling, the head.
    const rounds = Math.ceil(tail / 15);
    assertEquals(program.operationCount, 3 + 5 + 2 * rounds);
  }
});

Deno.test("a ring in two address spaces was inherited, in one address space it is shared", () => {
  const process = (pid: number) => ({
    pid,
    vmas: {
      vmas: [
        { entry: area(0x1000n, 4096n, VMA_STATUS.AIORING), inode: 5n } as Vma,
      ],
    },
  });
  const processes = [process(1), process(2), process(3)];
  const found = inheritedRings(processes, (pid) => pid === 3 ? 2 : 1);
  assertEquals(found.map(({ object }) => object), ["task 3"]);
});
