import { assertEquals, assertThrows } from "@std/assert";
import { DT, dynamicEntries, programHeaders, PT_LOAD, word } from "./elf.ts";
import { BASE, prelink } from "./prelink.ts";

const deno = Deno.readFileSync(
  `${import.meta.dirname}/../../node_modules/deno/deno`,
);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer);

Deno.test("a prelinked executable runs where it was linked for", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, prelink(deno));
    await Deno.chmod(path, 0o755);
    const program = 'console.log(Deno.readTextFileSync("/proc/self/maps"))';
    const { code, stdout } = await new Deno.Command(path, {
      args: ["eval", "--ext=js", program],
      env: { DENO_NO_UPDATE_CHECK: "1" },
    }).output();
    assertEquals(code, 0);
    const first = new TextDecoder().decode(stdout).split("\n")
      .find((line) => line.endsWith(path));
    assertEquals(parseInt(first ?? "", 16), BASE);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("prelinking leaves no relocation that needs no other library", () => {
  const before = view(deno);
  const after = view(prelink(deno));
  const count = (elf: DataView) =>
    word(elf, dynamicEntries(elf, programHeaders(elf)).get(DT.RELACOUNT)!);
  const size = (elf: DataView) =>
    word(elf, dynamicEntries(elf, programHeaders(elf)).get(DT.RELASZ)!);
  assertEquals(count(after), 0);
  assertEquals(size(after), size(before) - 24 * count(before));
  const loads = (elf: DataView) =>
    programHeaders(elf).filter(({ type }) => type === PT_LOAD);
  assertEquals(
    loads(after).map(({ address }) => address),
    loads(before).map(({ address }) => address + BASE),
  );
});

Deno.test("relocations that are not known are refused", () => {
  const copy = deno.slice();
  const elf = view(copy);
  const dynamic = dynamicEntries(elf, programHeaders(elf));
  elf.setBigUint64(
    dynamic.get(DT.RELACOUNT)!,
    BigInt(word(elf, dynamic.get(DT.RELACOUNT)!) - 1),
    true,
  );
  assertThrows(() => prelink(copy), Error, "not sorted");
});
