import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { syscall } from "../ffi/syscall.ts";
import { decodeProgram } from "../ffi/testing/decoded_program.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { readSmaps, readSysvSegments } from "../proc/read.ts";
import { attachedLength, attachSegments } from "./attach_segments.ts";
import { area, PAGE, R } from "./testing/layouts.ts";
import { MAP } from "./vma.ts";

const IPC_RMID = 0n;
const ROOM = 4096n * PAGE;
const ANONYMOUS = BigInt.asUintN(64, -1n);

/** Maps addresses that no other thread is to get; 0n: anywhere. */
function reserve(start: bigint, length: bigint): bigint {
  const flags = MAP.private | MAP.anonymous | MAP.noreserve |
    (start === 0n ? 0 : MAP.fixed);
  return syscall("mmap", start, length, 0n, BigInt(flags), ANONYMOUS, 0n);
}

class Room implements Disposable {
  readonly start = reserve(0n, ROOM);

  [Symbol.dispose](): void {
    syscall("munmap", this.start, ROOM);
  }
}

class Segment implements Disposable {
  readonly id: number;
  constructor(readonly size: bigint) {
    this.id = Number(syscall("shmget", 0n, size, 0o1600n));
  }

  [Symbol.dispose](): void {
    syscall("shmctl", BigInt(this.id), IPC_RMID, 0n);
  }
}

/** Runs the program in this process: it has no data and no results. */
function execute(program: Program): void {
  for (const { name, args } of decodeProgram(program).operations) {
    assert(args.every(({ kind }) => kind === "immediate"), name);
    const values = args.map(({ value }) => BigInt.asUintN(64, value));
    const [a, b, c, d, e, f] = values;
    if (!(name in { shmat: 0, mremap: 0, munmap: 0, mprotect: 0 })) {
      throw new Error(`an unexpected call: ${name}`);
    }
    syscall(name as "shmat", a, b, c, d, e, f);
  }
}

function part(
  { id }: Segment,
  base: bigint,
  [first, end]: readonly [number, number],
  prot: number,
  fdflags = 2,
): vma_entry {
  const page = (number: number) => base + BigInt(number) * PAGE;
  return area(page(first), page(end), {
    shmid: BigInt(id),
    pgoff: BigInt(first) * PAGE,
    prot,
    fdflags,
    flags: MAP.shared | MAP.anonymous,
    status: R | VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC,
  });
}

/** What is attached between two addresses, as the areas were said to be. */
function attached(start: bigint, end: bigint) {
  return readSmaps(Deno.pid)
    .filter((mapping) => start <= mapping.start && mapping.end <= end)
    .filter(({ path }) => path.startsWith("/SYSV"))
    .map((mapping) =>
      [
        BigInt(mapping.start),
        BigInt(mapping.end),
        mapping.prot,
        BigInt(mapping.offset),
        mapping.inode,
        mapping.vmFlags.has("mw"),
      ] as const
    );
}

function wantedOf(vma: vma_entry) {
  const { start, end, prot, pgoff, shmid, fdflags } = vma;
  return [start, end, prot, pgoff, shmid, fdflags !== 0] as const;
}

function attach(vmas: readonly vma_entry[], segments: Segment[], room: Room) {
  const program = new Program();
  const scratch = Number(room.start + ROOM / 2n);
  attachSegments(program, vmas, {
    segments: new Map(segments.map((one) => [BigInt(one.id), one])),
    agent: { start: scratch - 4096, end: scratch },
  });
  const largest = segments.reduce(
    (most, segment) =>
      attachedLength(segment) > most ? attachedLength(segment) : most,
    0n,
  );
  // As in an agent: nothing is where the parts are moved from.
  syscall("munmap", BigInt(scratch), largest);
  execute(program);
  reserve(BigInt(scratch), largest);
}

function attachedTo({ id }: Segment): number {
  return readSysvSegments().find((segment) => segment.id === id)!.attached;
}

Deno.test("a whole segment is attached, to its last byte and no further", () => {
  using segment = new Segment(2n * PAGE + 1n);
  using room = new Room();
  const vmas = [part(segment, room.start + PAGE, [0, 3], 3)];
  attach(vmas, [segment], room);
  assertEquals(attached(room.start, room.start + ROOM), vmas.map(wantedOf));
  assertEquals(attachedTo(segment), 1);
});

Deno.test("areas that are alike stay apart, those of others are left out", () => {
  using segment = new Segment(8n * PAGE);
  using room = new Room();
  const at = room.start + 100n * PAGE;
  const vmas = [
    part(segment, at, [0, 1], 3),
    part(segment, at, [1, 2], 3),
    part(segment, at, [2, 4], 3),
    part(segment, at, [5, 8], 1),
  ];
  attach(vmas, [segment], room);
  assertEquals(attached(room.start, room.start + ROOM), vmas.map(wantedOf));
  assertEquals(attachedTo(segment), 4);
  const program = new Program();
  attachSegments(program, [area(at, at + PAGE, {})], {
    segments: new Map(),
    agent: { start: 0, end: 0 },
  });
  assertEquals(program.operationCount, 0);
});

Deno.test("what of an attachment was at one distance shmdt takes away together", () => {
  using segment = new Segment(8n * PAGE);
  using room = new Room();
  const [first, moved] = [100n, 200n].map((page) => room.start + page * PAGE);
  const kept = part(segment, moved, [2, 3], 3);
  const vmas = [
    part(segment, first, [1, 2], 0),
    part(segment, first, [5, 8], 1),
    kept,
  ];
  attach(vmas, [segment], room);
  syscall("shmdt", first);
  assertEquals(attached(room.start, room.start + ROOM), [wantedOf(kept)]);
});

Deno.test("random parts of segments come to their places, each as an area of its own", () => {
  const random = seededRandom(31);
  const below = (n: number) => Math.floor(random() * n);
  let areas = 0;
  for (let round = 0; round < 100; round++) {
    using few = new Segment(BigInt(1 + below(3 * 4096)));
    using many = new Segment(BigInt(20 * 4096 + below(4096)));
    using room = new Room();
    const vmas: vma_entry[] = [];
    let next = room.start + PAGE;
    for (let i = 0; i < 5; i++) {
      const segment = random() < 0.4 ? few : many;
      const pages = Number(attachedLength(segment) / PAGE);
      const fdflags = random() < 0.3 ? 0 : 2;
      let end = 0;
      for (let page = below(3); page < pages; page = end + below(3)) {
        end = Math.min(pages, page + 1 + below(5));
        if (random() < 0.2) continue;
        const prot = [0, 1, 1, 5, ...(fdflags === 0 ? [] : [3, 3, 3])];
        vmas.push(
          part(segment, next, [page, end], prot[below(prot.length)], fdflags),
        );
      }
      next += BigInt(pages + below(3)) * PAGE;
    }
    attach(vmas, [few, many], room);
    assertEquals(attached(room.start, room.start + ROOM), vmas.map(wantedOf));
    for (const segment of [few, many]) {
      const own = vmas.filter(({ shmid }) => shmid === BigInt(segment.id));
      assertEquals(attachedTo(segment), own.length);
    }
    areas += vmas.length;
  }
  assert(areas > 1000, `${areas} areas`);
});
