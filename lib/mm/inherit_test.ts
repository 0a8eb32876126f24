import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { decodeProgram } from "../ffi/testing/decoded_program.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import { MADV } from "./areas.ts";
import {
  type InheritInput,
  inheritMemory,
  inheritsMemory,
  planInheritance,
} from "./inherit.ts";
import type { Range } from "./ranges.ts";
import { rebuildMemory, sealMemory } from "./rebuild.ts";
import type { AddressSpace } from "./testing/address_space.ts";
import {
  CHILD_PAGES_FD,
  type Contents,
  entriesOf,
  type Family,
  randomFamily,
} from "./testing/families.ts";
import {
  area,
  check,
  input,
  mapped,
  modelFor,
  PAGES_FD,
  R,
  storedAt,
} from "./testing/layouts.ts";
import { MAP } from "./vma.ts";

/** What a place in one of the page images holds. */
function reader({ parent, child, parentPages, childPages }: Family) {
  const bytes = new Map<string, string>();
  for (
    const [entries, contents, fd] of [
      [parent.pages, parentPages, PAGES_FD],
      [child.pages, childPages, CHILD_PAGES_FD],
    ] as const
  ) {
    for (const [at, place] of storedAt(entries, fd)) {
      bytes.set(place, contents.get(at)!);
    }
  }
  return (place: string | undefined) =>
    place === undefined ? undefined : bytes.get(place) ?? place;
}

/** Rebuilds the parent, forks, and makes the child of it. */
function inherit(family: Family): AddressSpace {
  const program = new Program();
  rebuildMemory(program, family.parent);
  const parent = modelFor(family.parent, family.child);
  parent.execute(decodeProgram(program));
  const space = parent.fork(
    [family.parent, family.child].flatMap(({ mm }) => mapped(mm.vmas)),
  );
  space.bytesFrom = reader(family);
  const changes = new Program();
  inheritMemory(changes, family.child);
  space.execute(decodeProgram(changes));
  return space;
}

function family(
  parent: vma_entry[],
  child: vma_entry[],
  parentPages: Contents,
  childPages: Contents,
  inherited: Range[] = [],
): Family {
  const before = input(parent, { pages: entriesOf(parentPages) });
  const after: InheritInput = {
    ...input(child, {
      pages: entriesOf(childPages),
      pagesFd: CHILD_PAGES_FD,
    }),
    parent: { mm: before.mm, pages: before.pages, extensions: new Map() },
    inherited,
  };
  return {
    parent: before,
    child: after,
    parentPages,
    childPages,
    shared: new Set(),
  };
}

const contents = (...of: [bigint, string][]): Contents => new Map(of);

function calls(family: Family): string[] {
  const program = new Program();
  inheritMemory(program, family.child);
  return decodeProgram(program).operations.map(({ name }) => name);
}

Deno.test("a child that has changed nothing needs one comparison, or with the record no call", () => {
  const vmas = [area(0x400000n, 0x410000n, {})];
  const both = contents([0x402000n, "a"], [0x403000n, "b"]);
  const same = family(vmas, vmas, both, both);
  assertEquals(calls(same), ["update"]);
  const space = inherit(same);
  check(space, same.child);
  assert(space.pages.get(0x402000n)!.inherited);
  const recorded = family(vmas, vmas, both, both, [
    { start: 0x402000n, end: 0x404000n },
  ]);
  assertEquals(calls(recorded), []);
  check(inherit(recorded), recorded.child);
});

Deno.test("a record of pages that one of the two does not have is not believed", () => {
  const vmas = [area(0x400000n, 0x410000n, {})];
  const lie = family(
    vmas,
    vmas,
    contents([0x402000n, "a"]),
    contents([0x403000n, "b"]),
    [{ start: 0x400000n, end: 0x410000n }],
  );
  check(inherit(lie), lie.child);
});

Deno.test("pages that only the parent has are dropped, many with one call", () => {
  const vmas = [area(0x400000n, 0x410000n, {})];
  const parent = contents(
    [0x401000n, "a"],
    [0x403000n, "b"],
    [0x405000n, "c"],
    [0x407000n, "d"],
  );
  const dropped = family(vmas, vmas, parent, contents([0x407000n, "d"]));
  assertEquals(calls(dropped), ["madvise", "update"]);
  check(inherit(dropped), dropped.child);
});

Deno.test("a heap that grew is made longer, so that it is one area as before", () => {
  const heap = (end: bigint) => [area(0x400000n, end, {})];
  const grown = family(
    heap(0x404000n),
    heap(0x408000n),
    contents([0x400000n, "a"]),
    contents([0x400000n, "a"], [0x407000n, "b"]),
  );
  assertEquals(calls(grown), ["mremap", "update", "pread64"]);
  const space = inherit(grown);
  check(space, grown.child);
  assert(space.pages.get(0x400000n)!.inherited);
  const shrunk = family(
    heap(0x408000n),
    heap(0x404000n),
    contents([0x400000n, "a"], [0x407000n, "b"]),
    contents([0x400000n, "a"]),
  );
  assertEquals(calls(shrunk), ["munmap", "update"]);
  check(inherit(shrunk), shrunk.child);
});

Deno.test("a stack that reaches further down than the parent's is made anew", () => {
  const stack = (start: bigint) => [
    area(start, 0x410000n, { flags: MAP.private | MAP.anonymous | 0x100 }),
  ];
  const deeper = family(
    stack(0x408000n),
    stack(0x404000n),
    contents([0x40f000n, "a"]),
    contents([0x40f000n, "a"], [0x404000n, "b"]),
  );
  const { kept } = planInheritance(deeper.child);
  assertEquals(kept, []);
  check(inherit(deeper), deeper.child);
  const flatter = family(
    stack(0x404000n),
    stack(0x408000n),
    contents([0x40f000n, "a"], [0x404000n, "b"]),
    contents([0x40f000n, "a"]),
  );
  const space = inherit(flatter);
  check(space, flatter.child);
  assert(space.pages.get(0x40f000n)!.inherited);
});

Deno.test("what fork leaves out or empties is mapped or filled again", () => {
  const advised = (advice: number) => [
    area(0x400000n, 0x404000n, { madv: 1n << BigInt(advice) }),
  ];
  const both = contents([0x401000n, "a"]);
  const gone = family(
    advised(MADV.dontfork),
    advised(MADV.dontfork),
    both,
    both,
  );
  assertEquals(calls(gone), ["mmap", "pread64", "madvise"]);
  check(inherit(gone), gone.child);
  const wiped = family(
    advised(MADV.wipeonfork),
    advised(MADV.wipeonfork),
    both,
    both,
  );
  assertEquals(calls(wiped), ["pread64"]);
  check(inherit(wiped), wiped.child);
});

Deno.test("areas that were one in the parent but are apart in the child stay apart", () => {
  const one = [area(0x400000n, 0x408000n, {})];
  const two = [area(0x400000n, 0x404000n, {}), area(0x404000n, 0x408000n, {})];
  const split = family(one, two, contents(), contents());
  assertEquals(planInheritance(split.child).made, [two[1]]);
  assert(calls(split).includes("mremap"));
  check(inherit(split), split.child);
});

Deno.test("a vdso at another place is mapped anew", () => {
  const special = (at: bigint) => [
    area(at, at + 0x4000n, {
      status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
      prot: 1,
    }),
    area(at + 0x4000n, at + 0x6000n, {
      status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
      prot: 5,
    }),
  ];
  const none = contents();
  const moved = family(special(0x400000n), special(0x500000n), none, none);
  assertEquals(calls(moved), ["munmap", "arch_prctl"]);
  check(inherit(moved), moved.child);
  const stays = family(special(0x400000n), special(0x400000n), none, none);
  assertEquals(calls(stays), []);
  assert(!inheritsMemory(moved.parent.mm, moved.child.mm));
  assert(inheritsMemory(stays.parent.mm, stays.child.mm));
});

Deno.test("a child of another program is not made from its parent", () => {
  const vmas = [area(0x400000n, 0x410000n, {})];
  const { parent, child } = family(vmas, vmas, contents(), contents());
  assert(inheritsMemory(parent.mm, child.mm));
  for (
    const change of [
      { exe_file_id: 99 },
      { mm_start_brk: 7n },
      { mm_start_stack: 7n },
    ]
  ) assert(!inheritsMemory(parent.mm, { ...child.mm, ...change }));
});

Deno.test("random children become what they were, and share what they did not write", () => {
  const random = seededRandom(31);
  const seen: Record<string, number> = {};
  let shared = 0;
  for (let round = 0; round < 300; round++) {
    const family = randomFamily(random);
    const space = inherit(family);
    check(space, family.child);
    for (const at of family.shared) {
      assert(
        space.pages.get(at)!.inherited,
        `round ${round}: ${at.toString(16)} is no longer shared`,
      );
    }
    shared += family.shared.size;
    for (const name of calls(family)) seen[name] = (seen[name] ?? 0) + 1;
    const sealing = new Program();
    sealMemory(sealing, family.child);
    space.execute(decodeProgram(sealing));
    check(space, family.child, true);
  }
  for (
    const name of ["update", "pread64", "mremap", "munmap", "mmap", "mprotect"]
  ) assert(seen[name] > 50, `${name}: ${seen[name]}`);
  assert(shared > 1500, `${shared} shared pages`);
});

Deno.test("a protection is opened only while pages are stored", () => {
  const text = [area(0x400000n, 0x404000n, { prot: PROT.read | PROT.exec })];
  const changed = family(
    text,
    text,
    contents([0x401000n, "a"]),
    contents([0x401000n, "b"]),
  );
  assertEquals(calls(changed), ["mprotect", "update", "mprotect"]);
  check(inherit(changed), changed.child);
});
