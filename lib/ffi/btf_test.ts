import { assert, assertEquals, assertThrows } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { END, fieldOffsets, UnknownField, withModule } from "./btf.ts";

const KIND = { int: 1, ptr: 2, struct: 4, union: 5, typedef: 8, const: 10 };

type Member = [name: string, type: number, bits: number];

/** Types as the kernel writes them (Documentation/bpf/btf.rst). */
function btf(
  types: { kind: number; name?: string; of?: number; members?: Member[] }[],
  bitfields = false,
  namesBefore = 0,
): Uint8Array<ArrayBuffer> {
  let names = "\0";
  const nameAt = (name = "") => {
    if (name === "") return 0;
    const known = names.indexOf(`\0${name}\0`);
    if (known >= 0) return namesBefore + known + 1;
    names += `${name}\0`;
    return namesBefore + names.length - name.length - 1;
  };
  const words = types.flatMap(({ kind, name, of = 0, members = [] }) => [
    nameAt(name),
    (bitfields ? 0x8000_0000 : 0) + kind * 0x100_0000 + members.length,
    of,
    ...kind === KIND.int ? [0] : [],
    ...members.flatMap(([name, type, bits]) => [nameAt(name), type, bits]),
  ]);
  const bytes = new Uint8Array(24 + words.length * 4 + names.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0xeb9f, true);
  [24, 0, words.length * 4, words.length * 4, names.length].forEach((word, i) =>
    view.setUint32(4 + i * 4, word, true)
  );
  words.forEach((word, i) => view.setUint32(24 + i * 4, word, true));
  bytes.set(new TextEncoder().encode(names), 24 + words.length * 4);
  return bytes;
}

/** The same question to types that are in files. */
function offsets(
  wanted: Parameters<typeof fieldOffsets>[0],
  ...types: Uint8Array[]
): ReturnType<typeof fieldOffsets> {
  const paths = types.map((bytes) => {
    const path = Deno.makeTempFileSync();
    Deno.writeFileSync(path, bytes);
    return path;
  });
  try {
    return fieldOffsets(wanted, { kernel: paths[0], module: paths[1] });
  } finally {
    for (const path of paths) Deno.removeSync(path);
  }
}

const TYPES = btf([
  { kind: KIND.int, name: "int" }, // 1
  {
    kind: KIND.struct,
    name: "inner",
    of: 8, // bytes
    members: [["a", 1, 0], ["b", 1, 32]],
  },
  { kind: KIND.typedef, name: "inner_t", of: 2 },
  { kind: KIND.const, of: 3 },
  { kind: KIND.union, members: [["first", 1, 0], ["second", 2, 0]] }, // 5
  { kind: KIND.ptr, of: 2 },
  { kind: KIND.struct, name: "outer", members: [["x", 1, 0]] },
  {
    kind: KIND.struct,
    name: "outer",
    members: [["in", 4, 64], ["", 5, 128], ["to", 6, 256], ["x", 1, 320]],
  },
]);

Deno.test("fields are found in structures, in those inside, and in those without a name", () => {
  const wanted = ["in.b", "first", "second.b", "to", "x"];
  const { outer, inner } = offsets({
    outer: wanted,
    inner: ["b", END],
  }, TYPES);
  assertEquals([...outer], [
    ["in.b", 96],
    ["first", 128],
    ["second.b", 160],
    ["to", 256],
    ["x", 320],
  ]);
  assertEquals([...inner], [["b", 32], [END, 64]]);
});

Deno.test("of bitfields the offset is told", () => {
  const bits = btf([
    { kind: KIND.int, name: "int" },
    {
      kind: KIND.struct,
      name: "flags",
      members: [["one", 1, 0x100_0000 + 5], ["two", 1, 0x200_0000 + 6]],
    },
  ], true);
  assertEquals([...offsets({ flags: ["one", "two"] }, bits).flags], [
    ["one", 5],
    ["two", 6],
  ]);
});

Deno.test("what a kernel does not have is told by its name", () => {
  for (
    const [wanted, message] of [
      [{ outer: ["nothing"] }, "structure outer has no nothing"],
      [{ outer: ["to.a"] }, "structure outer has no to.a"],
      [{ other: ["a"] }, "tells of no structure other"],
    ] as const
  ) assertThrows(() => offsets(wanted, TYPES), UnknownField, message);
  for (const length of [0, 10, 40]) {
    assertThrows(
      () => offsets({}, new Uint8Array(length)),
      UnknownField,
      "unknown format",
    );
  }
  assertThrows(
    () => fieldOffsets({}, { kernel: "/nowhere/vmlinux" }),
    UnknownField,
    "there is no /nowhere/vmlinux",
  );
});

Deno.test("the types of a module go on where those of the kernel end", () => {
  const names = new DataView(TYPES.buffer).getUint32(20, true);
  const module = btf(
    [{
      kind: KIND.struct,
      name: "layers",
      members: [["of", 3, 64], ["own", 9, 128]],
    }],
    false,
    names,
  );
  const found = offsets({ layers: ["of.b"], inner: ["b"] }, TYPES, module);
  assertEquals([...found.layers], [["of.b", 96]]);
  assertEquals([...found.inner], [["b", 32]]);
});

Deno.test("damaged types are refused, or tell something else", () => {
  const random = seededRandom(5);
  for (let round = 0; round < 300; round++) {
    const damaged = TYPES.slice();
    for (let i = 0; i < 1 + round % 4; i++) {
      damaged[Math.floor(random() * damaged.length)] = random() * 256;
    }
    const length = round % 3 === 0
      ? Math.floor(random() * damaged.length)
      : damaged.length;
    try {
      const fields = ["in.b", "second.b", "x"];
      const { outer } = offsets({ outer: fields }, damaged.slice(0, length));
      assertEquals([...outer.keys()], fields);
    } catch (error) {
      assert(error instanceof UnknownField, String(error));
    }
  }
  // A structure that is in itself, without a name.
  const endless = btf([
    { kind: KIND.struct, name: "s", members: [["", 1, 0], ["", 1, 0]] },
  ]);
  assertThrows(() => offsets({ s: ["x"] }, endless), UnknownField);
});

Deno.test("this kernel tells of its structures", () => {
  const { task_struct, list_head } = fieldOffsets({
    task_struct: ["tasks.prev", "tasks.next", "pid"],
    list_head: ["next", "prev", END],
  }, withModule("no module of this name"));
  assertEquals([...list_head], [["next", 0], ["prev", 64], [END, 128]]);
  assertEquals(
    task_struct.get("tasks.prev"),
    task_struct.get("tasks.next")! + 64,
  );
  assert(task_struct.get("pid")! % 32 === 0);
});
