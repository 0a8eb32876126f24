import { assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import {
  NO_CALL,
  rawRegisters,
  REGISTER,
  REGISTER_COUNT,
  registersEntry,
} from "./registers.ts";

/** Different in each register, and wider than a Number can hold. */
function someRegisters(): BigUint64Array<ArrayBuffer> {
  return BigUint64Array.from(
    { length: REGISTER_COUNT },
    (_, i) => 0xfedc_ba98_7654_3200n + BigInt(i),
  );
}

Deno.test("registers keep their values on the way to an image and back", () => {
  const raw = someRegisters();
  const back = rawRegisters(registersEntry(raw, 1), 1);
  raw[REGISTER.origRax] = NO_CALL;
  assertEquals(back, raw);
});

Deno.test("registers are found under the names of the image", () => {
  const raw = someRegisters();
  const entry = registersEntry(raw, 1);
  assertEquals(
    [entry.r15, entry.ax, entry.orig_ax, entry.ip, entry.sp, entry.fs_base],
    [
      raw[REGISTER.r15],
      raw[REGISTER.rax],
      raw[REGISTER.origRax],
      raw[REGISTER.rip],
      raw[REGISTER.rsp],
      raw[REGISTER.fsBase],
    ],
  );
  assertEquals(entry.gs, raw[26]);
});

Deno.test("selectors that the kernel would not take become those of a 64-bit program", () => {
  const raw = someRegisters();
  raw[REGISTER.cs] = raw[REGISTER.ss] = 0n;
  const back = rawRegisters(registersEntry(raw, 1), 1);
  assertEquals(back[REGISTER.cs], 0x33n);
  assertEquals(back[REGISTER.ss], 0x2bn);
});

Deno.test("32-bit code is refused, saved or restored", () => {
  const raw = someRegisters();
  const compat = { ...registersEntry(raw, 7), mode: 2 };
  raw[REGISTER.cs] = 0x23n;
  for (
    const act of [
      () => registersEntry(raw, 7),
      () => rawRegisters(compat, 7),
      () => rawRegisters({ ...compat, mode: 1, cs: 0x23n }, 7),
    ]
  ) {
    assertEquals(assertThrows(act, CkptError).exit, EXIT.refused);
  }
});
