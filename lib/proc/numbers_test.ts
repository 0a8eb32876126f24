import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  decimal,
  decimalBigint,
  hexBigint,
  octal,
  signedDecimal,
} from "./numbers.ts";

const place = { source: "/proc/7/stat", line: 3, text: "the whole line" };

Deno.test("numbers are read when nothing but digits is there", () => {
  assertEquals(decimal("0", place), 0);
  assertEquals(decimal("9007199254740991", place), 2 ** 53 - 1);
  assertEquals(signedDecimal("-1000", place), -1000);
  assertEquals(Object.is(signedDecimal("-0", place), 0), true);
  assertEquals(octal("02104002", place), 0o2104002);
  assertEquals(hexBigint("ffffffffffffffff", place), 2n ** 64n - 1n);
  assertEquals(decimalBigint("18446744073709551615", place), 2n ** 64n - 1n);
});

Deno.test("what is not exactly a number is rejected", () => {
  for (const text of ["", " 1", "1 ", "1.5", "1e3", "0x1", "+1", "one"]) {
    assertThrows(() => decimal(text, place), CkptError);
    assertThrows(() => signedDecimal(text, place), CkptError);
    assertThrows(() => decimalBigint(text, place), CkptError);
    assertThrows(() => octal(text, place), CkptError);
  }
  for (const text of ["", "0x1", "F", "-1", "g", "10000000000000000"]) {
    assertThrows(() => hexBigint(text, place), CkptError);
  }
  assertThrows(() => octal("8", place), CkptError);
  assertThrows(() => octal("40000000000", place), CkptError);
  assertThrows(() => decimalBigint("18446744073709551616", place), CkptError);
});

Deno.test("a number is never rounded, but may be a large multiple", () => {
  assertThrows(() => decimal("9007199254740993", place), CkptError);
  assertThrows(() => signedDecimal("-9007199254740993", place), CkptError);
  assertEquals(decimal("18446744073699065856", place), 0xffffffffff600000);
});

Deno.test("the error names file, line, value and text", () => {
  const error = assertThrows(() => decimal("x", place), CkptError);
  assertEquals(error.exit, 1);
  assertEquals(error.reasons[0].object, "/proc/7/stat, line 3");
  assertEquals(
    error.reasons[0].why,
    'expected a decimal number, found "x": "the whole line"',
  );
});
