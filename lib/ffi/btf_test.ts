import { assertEquals, assertThrows } from "@std/assert";
import { fieldOffsets, UnknownField } from "./btf.ts";

const KIND = { int: 1, ptr: 2, struct: 4, union: 5, typedef: 8, const: 10 };

type Member = [name: string, type: number, bits: number];

/** Types as the kernel writes them (Documentation/bpf/btf.rst). */
function btf(
  types: { kind: number; name?: string; of?: number; members?: Member[] }[],
  bitfields = false,
): Uint8Array<ArrayBuffer> {
  let names = "\0";
  const nameAt = (name = "") => {
    if (name === "") return 0;
    const known = names.indexOf(`\0${name}\0`);
    if (known >= 0) return known + 1;
    names += `${name}\0`;
    return names.length - name.length - 1;
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

const TYPES = btf([
  { kind: KIND.int, name: "int" }, // 1
  { kind: KIND.struct, name: "inner", members: [["a", 1, 0], ["b", 1, 32]] },
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
  const { outer, inner } = fieldOffsets(TYPES, {
    outer: wanted,
    inner: ["b"],
  });
  assertEquals([...outer], [
    ["in.b", 96],
    ["first", 128],
    ["second.b", 160],
    ["to", 256],
    ["x", 320],
  ]);
  assertEquals([...inner], [["b", 32]]);
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
  assertEquals([...fieldOffsets(bits, { flags: ["one", "two"] }).flags], [
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
  ) assertThrows(() => fieldOffsets(TYPES, wanted), UnknownField, message);
  assertThrows(() => fieldOffsets(new Uint8Array(40), {}), UnknownField);
});
