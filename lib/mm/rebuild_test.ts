import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { Program } from "../ffi/program.ts";
import { decodeProgram } from "../ffi/testing/decoded_program.ts";
import { minimalImage } from "../image/testing/minimal_image.ts";
import { seededRandom } from "../image/testing/random.ts";
import { fd_types } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import {
  type RebuildInput,
  rebuildMemory,
  sealMemory,
  unmapAllBut,
} from "./rebuild.ts";
import type { AddressSpace } from "./testing/address_space.ts";
import {
  AGENT,
  area,
  check,
  input,
  modelFor,
  pages,
  R,
  randomInput,
} from "./testing/layouts.ts";
import { MAP } from "./vma.ts";

/** Executes the program on the model. */
function rebuild(wanted: RebuildInput): AddressSpace {
  const program = new Program();
  rebuildMemory(program, wanted);
  const space = modelFor(wanted);
  space.execute(decodeProgram(program));
  return space;
}

Deno.test("the smallest image is rebuilt, and its vdso is the kernel's", () => {
  const { mm, files, pagemap } = minimalImage();
  const wanted = input(mm.vmas, {
    files: new Map(
      files.filter(({ type }) => type === fd_types.REG)
        .map(({ id, reg }) => [id, reg!]),
    ),
    pages: pagemap.entries,
  });
  for (const vma of wanted.mm.vmas) {
    if (vma.shmid !== 0n) vma.fdflags = 0;
  }
  check(rebuild(wanted), wanted);
});

Deno.test("random address spaces are rebuilt exactly, and nothing else is touched", () => {
  const random = seededRandom(11);
  let filled = 0;
  let moved = 0;
  for (let round = 0; round < 150; round++) {
    const wanted = randomInput(random);
    const program = new Program();
    rebuildMemory(program, wanted);
    const names = decodeProgram(program).operations.map(({ name }) => name);
    filled += names.filter((name) => name === "pread64").length;
    moved += names.filter((name) => name === "mremap").length;
    const space = rebuild(wanted);
    check(space, wanted);
    const sealing = new Program();
    sealMemory(sealing, wanted);
    space.execute(decodeProgram(sealing));
    check(space, wanted, true);
  }
  assert(filled > 500, `${filled} reads`);
  assert(moved > 50, `${moved} moves`);
});

Deno.test("pages across the vdso are read around it, from the right offsets", () => {
  const vvar = area(0x500000n, 0x502000n, {
    prot: 1,
    status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
  });
  const vdso = area(0x502000n, 0x503000n, {
    prot: 5,
    status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
  });
  const behind = area(0x503000n, 0x505000n, { prot: 1 });
  const wanted = input([vvar, vdso, behind], { pages: [pages(0x502000n, 3n)] });
  check(rebuild(wanted), wanted);
});

Deno.test("a vdso apart from its data, or without it, is refused", () => {
  const vvar = (end: bigint) =>
    area(end - 0x4000n, end, {
      status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
    });
  const vdso = area(0x502000n, 0x504000n, {
    status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
  });
  for (
    const vmas of [[vdso], [vvar(0x502000n)], [vvar(0x501000n), vdso], [
      vdso,
      vvar(0x508000n),
    ]]
  ) {
    const error = assertThrows(
      () => rebuildMemory(new Program(), input(vmas)),
      CkptError,
    );
    assertEquals(error.exit, EXIT.refused);
    assertEquals(error.reasons[0].object, "vdso");
  }
});

Deno.test("a file is opened as its mapping needs where the image does not tell", () => {
  const files = new Map([[1, minimalImage().files[0].reg!]]);
  const modes = [
    [VMA_STATUS.FILE_PRIVATE, PROT.read | PROT.write, "0"],
    [VMA_STATUS.FILE_SHARED, PROT.read, "0"],
    [VMA_STATUS.FILE_SHARED, PROT.read | PROT.write, "2"],
  ] as const;
  for (const [status, prot, mode] of modes) {
    const vma = area(0x500000n, 0x501000n, {
      status: R | status,
      flags: status === VMA_STATUS.FILE_SHARED ? MAP.shared : MAP.private,
      prot,
      shmid: 1n,
    });
    const page = rebuild(input([vma], { files })).pages.get(0x500000n);
    assertEquals(page?.file, `/opt/demo/tiny ${mode}`);
  }
});

Deno.test("all below and above the agent is unmapped, and nothing of it", () => {
  const program = new Program();
  unmapAllBut(program, AGENT);
  const { operations } = decodeProgram(program);
  assertEquals(
    operations.map(({ name, args }) => [name, args[0].value, args[1].value]),
    [
      ["munmap", 0n, BigInt(AGENT.start)],
      ["munmap", BigInt(AGENT.end), 0x7fff_ffff_f000n - BigInt(AGENT.end)],
    ],
  );
});
