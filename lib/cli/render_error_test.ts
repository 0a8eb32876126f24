/** Errors as people and programs see them. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import {
  asCkptError,
  errorDocument,
  printable,
  renderForPeople,
  renderStacks,
  toJson,
} from "./render_error.ts";

const ERROR = new CkptError(EXIT.refused, "dumping task 1234", [
  {
    object: "descriptor 5 of task 1234",
    why: "an io_uring cannot be saved",
    remedy: "close it before the dump",
  },
  { object: "descriptor 6 of task 1234", why: "its file is gone" },
  {
    object: "task 1234",
    why: "belongs to a session of the outside",
    remedy: "use --shell-job",
  },
]);

Deno.test("people see the first reason first, and what to do below each", () => {
  assertEquals(
    renderForPeople(ERROR, "dump"),
    `ckpt dump: dumping task 1234: descriptor 5 of task 1234: an io_uring cannot be saved
  -> close it before the dump
  descriptor 6 of task 1234: its file is gone
  task 1234: belongs to a session of the outside
    -> use --shell-job`,
  );
});

Deno.test("a long list of reasons is shown in full", () => {
  const reasons = Array.from({ length: 5000 }, (_, i) => ({
    object: `descriptor ${i}`,
    why: "cannot be saved",
  }));
  const text = renderForPeople(
    new CkptError(EXIT.refused, "dumping task 1", reasons),
    "dump",
  );
  assertEquals(text.split("\n").length, 5000);
  assertStringIncludes(text, "\n  descriptor 4999: cannot be saved");
});

Deno.test("programs see the same as JSON", () => {
  assertEquals(
    toJson(errorDocument(ERROR)),
    '{"error":{"exit":3,"action":"dumping task 1234","reasons":[' +
      '{"object":"descriptor 5 of task 1234","why":"an io_uring cannot be saved","remedy":"close it before the dump"},' +
      '{"object":"descriptor 6 of task 1234","why":"its file is gone"},' +
      '{"object":"task 1234","why":"belongs to a session of the outside","remedy":"use --shell-job"}]}}',
  );
});

Deno.test("a BigInt becomes a number where that is exact, else a string", () => {
  assertEquals(
    toJson({ a: 5n, b: 2n ** 53n - 1n, c: 2n ** 64n - 1n }),
    '{"a":5,"b":9007199254740991,"c":"18446744073709551615"}',
  );
});

Deno.test("whatever else is thrown is a fault of ckpt, with exit code 1", () => {
  for (const thrown of [new TypeError("x is undefined"), "x is undefined", 5]) {
    const error = asCkptError(thrown);
    assertEquals(error.exit, EXIT.failed);
    assertEquals(error.action, "internal error");
  }
  assertEquals(asCkptError(ERROR), ERROR);
});

Deno.test("stacks include the causes, and a circle of causes ends", () => {
  const inner = new Error("inner");
  const outer = new Error("outer", { cause: inner });
  assertStringIncludes(renderStacks(outer), "caused by Error: inner");
  inner.cause = outer;
  assertStringIncludes(renderStacks(outer), "caused by Error: outer");
});

Deno.test("names chosen by the program cannot write to the terminal", () => {
  assertEquals(
    printable("a\x1b[2Jb\nc\x7f\x9b\u202ed ü 文"),
    "a\\x1b[2Jb\\x0ac\\x7f\\x9b\\u202ed ü 文",
  );
});
