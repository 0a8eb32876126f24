import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { seededRandom } from "../image/testing/random.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { AGENT_CALLS, Program, type Result, YIELD } from "./program.ts";
import { NR, O } from "./syscall.ts";
import { ADDRESS, decodeProgram, textAt } from "./testing/decoded_program.ts";

Deno.test("a program is header, operations, results, data, in this order", () => {
  const program = new Program();
  program.call("getpid", [], "a");
  program.call("read", [1, 2n, 3], "b", { mayFail: true });
  program.call("pread64", [1, 2, 3, 4], "c", { mayFail: true, whole: true });
  const data = program.bytes(Uint8Array.of(9, 8, 7));
  const bytes = program.encode(0x10000n, YIELD.stop, 0x1234n);
  const words = new BigUint64Array(bytes.buffer);
  const operations = 64;
  const results = operations + 3 * 64;
  // Data begins at a multiple of 16.
  const start = results + 3 * 8 + 8;
  assertEquals(bytes.length, start + 16);
  assertEquals(bytes.length, program.size);
  assertEquals([...words.subarray(0, 8)], [
    3n,
    0x10000n + BigInt(operations),
    0x10000n + BigInt(results),
    0x10000n + BigInt(start),
    (1n << 64n) - 1n, // nothing has failed
    0n,
    0x1234n,
    YIELD.stop,
  ]);
  const view = new DataView(bytes.buffer);
  const second = operations + 64;
  assertEquals([...words.subarray(second / 8, second / 8 + 7)], [
    BigInt(NR.read),
    1n,
    2n,
    3n,
    0n,
    0n,
    0n,
  ]);
  const flags = [0, 1, 2].map((i) =>
    view.getUint32(operations + i * 64 + 60, true)
  );
  assertEquals(flags, [0, 1, 3]);
  assertEquals(data, { data: 0, length: 3 });
  assertEquals([...bytes.subarray(start, start + 4)], [9, 8, 7, 0]);
});

Deno.test("each of six arguments is a number, a result or a place", () => {
  const program = new Program();
  const first = program.call("getpid", [], "a");
  const second = program.call("getppid", [], "b");
  program.reserve(40);
  const place = program.reserve(8);
  assertEquals(place.data, 48);
  program.call(
    "mmap",
    [first, place, 7, second, program.at(place, 4), -1],
    "c",
  );
  const { operations } = decodeProgram(program);
  assertEquals(operations[2].args, [
    { kind: "result", value: 0n },
    { kind: "data", value: 48n },
    { kind: "immediate", value: 7n },
    { kind: "result", value: 1n },
    { kind: "data", value: 52n },
    { kind: "immediate", value: 0xffff_ffff_ffff_ffffn },
  ]);
});

Deno.test("there is room for any number of operations and data", () => {
  const program = new Program();
  for (let i = 0; i < 3000; i++) {
    const close = program.call(
      "close",
      [i, program.int32(-i)],
      () => `closing ${i}`,
    );
    assertEquals(program.argument(close, 0), i);
  }
  const { operations, data } = decodeProgram(program);
  operations.forEach(({ args: [fd, place], purpose }, i) => {
    assertEquals(fd, { kind: "immediate", value: BigInt(i) });
    assertEquals(data.getInt32(Number(place.value), true), -i);
    assertEquals(purpose, `closing ${i}`);
  });
});

Deno.test("negative and large numbers wrap to 64 bits", () => {
  const program = new Program();
  program.call("lseek", [-1, -100n, 2n ** 64n - 1n], "a");
  const place = program.words([-1, -2n, 2n ** 63n, 2n ** 64n + 5n]);
  const { operations, data } = decodeProgram(program);
  assertEquals(operations[0].args.slice(0, 3).map(({ value }) => value), [
    2n ** 64n - 1n,
    2n ** 64n - 100n,
    2n ** 64n - 1n,
  ]);
  assertEquals(
    [0, 8, 16, 24].map((at) => data.getBigUint64(place.data + at, true)),
    [2n ** 64n - 1n, 2n ** 64n - 2n, 2n ** 63n, 5n],
  );
});

Deno.test("places in words become addresses, wherever the program is and grows", () => {
  const program = new Program();
  const text = program.text("é");
  const words = program.words([1, text, program.at(text, 1)]);
  // Both move when operations are added.
  for (let i = 0; i < 3; i++) program.call("getpid", [], "a");
  for (const address of [0x1000n, 0x7fff_0000_0000n]) {
    const bytes = program.encode(address, YIELD.stop);
    const view = new DataView(bytes.buffer);
    const start = view.getBigUint64(24, true);
    const at = Number(start - address) + words.data;
    assertEquals(view.getBigUint64(at + 8, true), start + BigInt(text.data));
    assertEquals(
      view.getBigUint64(at + 16, true),
      start + BigInt(text.data) + 1n,
    );
  }
});

Deno.test("data of any size keeps its content as it grows", () => {
  const random = seededRandom(2);
  const program = new Program();
  const pieces = Array.from({ length: 60 }, (_, i) => {
    const bytes = new Uint8Array(Math.floor(random() * 300)).fill(i + 1);
    return { bytes, place: program.bytes(bytes) };
  });
  const text = program.text(Uint8Array.of(0xff, 0x41));
  const number = program.reserve(8);
  program.setInt32(number, 4, -5);
  const decoded = decodeProgram(program);
  for (const { bytes, place } of pieces) {
    assertEquals(place.data % 16, 0);
    const found = new Uint8Array(
      decoded.data.buffer,
      decoded.data.byteOffset + place.data,
      place.length,
    );
    assertEquals(found, bytes);
  }
  assertEquals(textAt(decoded, BigInt(text.data)), "\xffA");
  assertEquals(decoded.data.getInt32(number.data + 4, true), -5);
  assertEquals(decoded.dataAddress > ADDRESS, true);
});

Deno.test("calls and flags have the numbers of the agent's header", () => {
  const header = Deno.readTextFileSync(
    new URL("../../c/agent/agent.h", import.meta.url),
  );
  const defined = [...header.matchAll(/^\tAGENT_(\w+) = (0x\w+),/gm)].map(
    ([, name, number]) => [name.toLowerCase(), Number(number)],
  );
  assertEquals(Object.entries(AGENT_CALLS), defined);
});

Deno.test("an outcome tells results, data and the operation that failed", () => {
  const program = new Program();
  const calls = [1, 2, 3].map((i) => program.call("getpid", [], `call ${i}`));
  const place = program.reserve(8);
  const bytes = program.encode(0n, YIELD.stop);
  const view = new DataView(bytes.buffer);
  const results = Number(view.getBigUint64(16, true));
  view.setBigInt64(results, 5n, true);
  view.setBigInt64(results + 8, -11n, true);
  view.setBigInt64(Number(view.getBigUint64(24, true)), -7n, true);
  const good = program.outcome(bytes);
  assertEquals(good.failure, undefined);
  assertEquals(calls.map((call) => good.result(call)), [5n, -11n, 0n]);
  assertEquals(good.data(place).getBigInt64(0, true), -7n);
  view.setBigInt64(32, 1n, true);
  view.setBigInt64(40, -11n, true);
  // The bytes may be a part of more.
  const more = new Uint8Array(bytes.length + 32);
  more.set(bytes, 16);
  const bad = program.outcome(more.subarray(16, 16 + bytes.length));
  assertEquals(bad.failure, { purpose: "call 2", index: 1, errno: 11 });
  assertEquals(bad.result(calls[1]), -11n);
});

/** A call of a random program, and what it has to return. */
interface Step {
  result: Result;
  expected: bigint;
}

const EBADF = 9n;
const ENODATA = 61n;
const CONTENT = 4096;

Deno.test("random programs run in an agent as they do on paper", () => {
  const random = seededRandom(77);
  const below = (n: number) => Math.floor(random() * n);
  using task = new AgentTask();
  let failures = 0;
  for (let round = 0; round < 60; round++) {
    const program = new Program();
    const steps: Step[] = [];
    const model = new Uint8Array(CONTENT);
    const copies: {
      place: ReturnType<Program["reserve"]>;
      bytes: Uint8Array;
    }[] = [];
    const file = program.call(
      "memfd_create",
      [program.text("content"), 0],
      "making a file",
    );
    program.call(
      "pwrite64",
      [file, program.bytes(model), CONTENT, 0],
      "filling",
      { whole: true },
    );
    const failsAt = random() < 0.3 ? below(20) : -1;
    let failed: string | undefined;
    let expectsMore = true;
    const add = (result: Result, expected: bigint) => {
      if (expectsMore) steps.push({ result, expected });
    };
    for (let i = 0; i < 20; i++) {
      if (i === failsAt) {
        failed = `failing at ${i}`;
        program.call("close", [file, 0], "closing");
        program.call("fsync", [file], failed);
        expectsMore = false;
      }
      switch (below(8)) {
        case 0:
          add(program.call("getpid", [], "a"), BigInt(task.pid));
          break;
        case 1: {
          const bytes = Uint8Array.from(
            { length: 1 + below(60) },
            () => below(256),
          );
          const at = below(CONTENT - 60);
          if (expectsMore) model.set(bytes, at);
          add(
            program.call(
              "pwrite64",
              [file, program.bytes(bytes), bytes.length, at],
              "b",
              { whole: random() < 0.5 },
            ),
            BigInt(bytes.length),
          );
          break;
        }
        case 2: {
          const length = 1 + below(60);
          const at = below(CONTENT - 60);
          const place = program.reserve(length);
          if (expectsMore) {
            copies.push({ place, bytes: model.slice(at, at + length) });
          }
          add(
            program.call("pread64", [file, place, length, at], "c", {
              whole: random() < 0.5,
            }),
            BigInt(length),
          );
          break;
        }
        case 3:
          add(
            program.call("lseek", [-1, 0, 0], "d", { mayFail: true }),
            -EBADF,
          );
          break;
        case 4: {
          // Past the end: a whole read says so, another one reads less.
          const whole = random() < 0.5;
          const place = program.reserve(64);
          add(
            program.call("pread64", [file, place, 64, CONTENT - 8], "e", {
              whole,
              mayFail: true,
            }),
            whole ? -ENODATA : 8n,
          );
          break;
        }
        case 5: {
          const place = program.reserve(16);
          const [value, size] = [
            BigInt(below(2 ** 32)) << 16n,
            [4, 8][below(2)],
          ];
          add(program.call("store", [place, value, size], "f"), 0n);
          const bytes = new Uint8Array(16);
          const stored = BigInt.asUintN(size * 8, value);
          new DataView(bytes.buffer).setBigUint64(0, stored, true);
          if (expectsMore) copies.push({ place, bytes });
          break;
        }
        case 6: {
          // Made as 2, it may have to stay there.
          const fd = 2 + 20 * below(3);
          const cloexec = random() < 0.5;
          const made = program.call("dup", [file], "j");
          if (random() < 0.5) {
            program.settle(fd, cloexec);
            add(made, BigInt(fd));
          } else {
            const flag = cloexec ? O.CLOEXEC : 0;
            add(program.call("move", [made, fd, flag], "k"), BigInt(fd));
          }
          const F_GETFD = 1;
          add(program.call("fcntl", [fd, F_GETFD], "l"), cloexec ? 1n : 0n);
          add(program.call("close", [fd], "m"), 0n);
          break;
        }
        default: {
          const again = program.call("dup", [file], "g");
          const seek = program.call("lseek", [again, 77 + i, 0], "h");
          add(seek, BigInt(77 + i));
          add(program.call("close", [again], "i"), 0n);
        }
      }
    }
    if (failed === undefined) {
      program.call("close", [file], "closing");
      const outcome = task.run(program);
      for (const { result, expected } of steps) {
        assertEquals(outcome.result(result), expected);
      }
      for (const { place, bytes } of copies) {
        const found = outcome.data(place);
        assertEquals(
          new Uint8Array(found.buffer, found.byteOffset, found.byteLength),
          bytes,
        );
      }
    } else {
      failures++;
      const error = assertThrows(() => task.run(program), CkptError);
      assertEquals(error.exit, EXIT.failed);
      assertEquals(error.reasons.map(({ object, why }) => [object, why]), [
        [failed, "EBADF (bad file descriptor)"],
      ]);
    }
  }
  assert(failures > 5);
  assertEquals(
    [...Deno.readDirSync(`/proc/${task.pid}/fd`)].map(({ name }) => name),
    ["0"],
  );
});
