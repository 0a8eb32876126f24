import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeMessage,
  encodeMessage,
  FieldError,
  messageType,
} from "./message.ts";
import { Reader, Writer } from "./protobuf.ts";
import { type Messages, SCHEMA } from "./schema.gen.ts";
import { randomMessage, seededRandom } from "./testing/random.ts";

function encode(name: string, value: unknown): Uint8Array {
  const writer = new Writer();
  encodeMessage(writer, messageType(name), value);
  return writer.finish();
}

function decode(name: string, bytes: Uint8Array | number[]): unknown {
  const reader = new Reader(Uint8Array.from(bytes));
  return decodeMessage(reader, reader.len, messageType(name));
}

Deno.test("every message survives encoding with any values", () => {
  const random = seededRandom(1);
  for (const name of Object.keys(SCHEMA)) {
    for (let round = 0; round < 50; round++) {
      const message = randomMessage(random, name);
      assertEquals(decode(name, encode(name, message)), message);
    }
  }
});

Deno.test("a message cut off fails as one, if it fails", () => {
  const random = seededRandom(2);
  for (const name of Object.keys(SCHEMA)) {
    const bytes = encode(name, randomMessage(random, name));
    const step = Math.ceil(bytes.length / 100);
    for (let length = 0; length < bytes.length; length += step) {
      try {
        decode(name, bytes.subarray(0, length));
      } catch (error) {
        if (!(error instanceof FieldError)) throw error;
      }
    }
  }
});

// What each byte is: field number << 3 | wire type, then the value.
const GOLDEN: { [M in keyof Messages]?: [Messages[M], number[]] } = {
  pstree_entry: [
    { pid: 300, ppid: 0, pgid: 300, sid: 300, threads: [300, 301] },
    [
      ...[0x08, 0xac, 0x02, 0x10, 0x00, 0x18, 0xac, 0x02, 0x20, 0xac, 0x02],
      // Unpacked: the tag comes before every element.
      ...[0x28, 0xac, 0x02, 0x28, 0xad, 0x02],
    ],
  ],
  vma_entry: [
    {
      start: 0xffffffffff600000n,
      end: 0x1000n,
      pgoff: 0n,
      shmid: 0n,
      prot: 3,
      flags: 2,
      status: 0x201,
      fd: -1n,
    },
    [
      ...[0x08, 0x80, 0x80, 0x80, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
      ...[0x10, 0x80, 0x20, 0x18, 0x00, 0x20, 0x00, 0x28, 0x03, 0x30, 0x02],
      // fd is zigzag: -1 is 1.
      ...[0x38, 0x81, 0x04, 0x40, 0x01],
    ],
  ],
  file_lock_entry: [
    { flag: 1, type: 0, pid: -1, fd: 3, start: -2n, len: 0n },
    [
      ...[0x08, 0x01, 0x10, 0x00],
      // Negative plain integers take ten bytes.
      ...[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
      ...[0x20, 0x03],
      ...[0x28, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
      ...[0x30, 0x00],
    ],
  ],
  binfmt_misc_entry: [
    { name: "é\udcff", enabled: true, interpreter: "" },
    [0x0a, 0x03, 0xc3, 0xa9, 0xff, 0x10, 0x01, 0x1a, 0x00],
  ],
  signal_queue_entry: [
    { signals: [{ siginfo: Uint8Array.of(1, 2) }] },
    [0x0a, 0x04, 0x0a, 0x02, 0x01, 0x02],
  ],
};

Deno.test("messages have the bytes that the wire format says", () => {
  for (const [name, [message, bytes]] of Object.entries(GOLDEN)) {
    assertEquals([...encode(name, message)], bytes);
    assertEquals(decode(name, bytes), message);
  }
});

Deno.test("repeated numbers are read packed as well", () => {
  assertEquals(
    decode("pstree_entry", [
      ...[0x08, 0x01, 0x10, 0x00, 0x18, 0x01, 0x20, 0x01],
      ...[0x2a, 0x03, 0xac, 0x02, 0x05],
    ]),
    { pid: 1, ppid: 0, pgid: 1, sid: 1, threads: [300, 5] },
  );
});

Deno.test("equal messages that follow each other in a field are one object, and nothing else is", () => {
  const action = (flags: bigint) => ({
    sigaction: 0n,
    flags,
    restorer: 0n,
    mask: 0n,
  });
  const none = action(0n);
  // Longer than one byte tells.
  const some = { ...action(2n ** 64n - 1n), sigaction: 2n ** 63n };
  const list = [none, none, none, some, some, none, action(0n), action(1n)];
  const tc = {
    task_state: 1,
    exit_code: 0,
    personality: 0,
    flags: 0,
    blk_sigset: 0n,
    comm: "x".repeat(200),
    sigactions: list,
  };
  const bytes = encode("task_core_entry", tc);
  const copies = list.map((entry) => ({ ...entry }));
  assertEquals(bytes, encode("task_core_entry", { ...tc, sigactions: copies }));
  const { sigactions } = decode("task_core_entry", bytes) as typeof tc;
  assertEquals(sigactions, list);
  assertEquals(
    sigactions.map((entry, i) => entry === sigactions[i - 1]),
    [false, true, true, false, true, false, true, false],
  );
});

Deno.test("equal messages in a field of several messages are one object", () => {
  const holders = [1, 1, 3, 1].map((cur) => ({
    ...{ task_state: 1, exit_code: 0, personality: 0, flags: 0 },
    ...{ blk_sigset: 0n, comm: "", sigactions: [] },
    rlimits: { rlimits: [{ cur: BigInt(cur), max: 2n ** 64n - 1n }] },
  }));
  const decoded = holders.map((holder) =>
    decode(
      "task_core_entry",
      encode("task_core_entry", holder),
    ) as typeof holders[number]
  );
  assertEquals(
    decoded.map(({ rlimits }) => rlimits),
    holders.map((one) => one.rlimits),
  );
  assertEquals(
    decoded.map(({ rlimits }, i) => rlimits === decoded[i - 1]?.rlimits),
    [false, true, false, false],
  );
});

Deno.test("a repeated element with another wire type is refused", () => {
  const threads = messageType("task_core_entry").fields
    .find(({ name }) => name === "sigactions")!.number;
  const tag = (wire: number) => {
    const number = threads << 3 | wire;
    return number < 128 ? [number] : [number & 127 | 128, number >> 7];
  };
  const action = [8, 0x08, 0, 0x10, 0, 0x18, 0, 0x20, 0];
  assertThrows(
    () =>
      decode("task_core_entry", [...tag(2), ...action, ...tag(0), ...action]),
    FieldError,
    "wire type",
  );
});

Deno.test("unknown fields of every wire type are passed over", () => {
  assertEquals(
    decode("fs_entry", [
      ...[0x08, 0x01, 0x10, 0x02],
      // Field 100 as varint, eight bytes, a length, and four bytes.
      ...[0xa0, 0x06, 0x80, 0x01],
      ...[0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],
      ...[0xa2, 0x06, 0x02, 0xff, 0xff],
      ...[0xa5, 0x06, 1, 2, 3, 4],
    ]),
    { cwd_id: 1, root_id: 2 },
  );
});

Deno.test("damage is told with the field it is in", () => {
  const cases: [string, number[], string][] = [
    ["fs_entry", [0x08, 0x01], "field root_id: is missing"],
    ["fs_entry", [0x08], "field cwd_id: ends too early"],
    ["fs_entry", [0x0a, 0x00], "field cwd_id: has wire type 2, not 0"],
    ["fs_entry", [0x08, 1, 0x08, 1], "field cwd_id: is there twice"],
    [
      "signal_queue_entry",
      [0x0a, 0x05, 0x0a],
      "field signals[0]: says it is 5",
    ],
    [
      "signal_queue_entry",
      [0x0a, 0x02, 0x0a, 0x00, 0x0a, 0x00],
      "field signals[1].siginfo: is missing",
    ],
    ["utsns_entry", [0x0a, 0x01, 0x00], "field nodename: holds a zero byte"],
    ["fs_entry", [0x0b], "field cwd_id: has wire type 3"],
    ["fs_entry", [0xa3, 0x06], "an unknown field has wire type 3"],
  ];
  for (const [name, bytes, words] of cases) {
    assertThrows(() => decode(name, bytes), FieldError, words);
  }
});

Deno.test("messages nested without end are refused", () => {
  let bytes = [0x0a, 0x01, 0x61];
  for (let depth = 0; depth < 100; depth++) {
    const size = bytes.length;
    const length = size < 128 ? [size] : [size & 0x7f | 0x80, size >> 7];
    bytes = [0x0a, 0x01, 0x61, 0x12, ...length, ...bytes];
  }
  assertThrows(
    () => decode("cgroup_dir_entry", bytes),
    FieldError,
    "more than 64 messages deep",
  );
});

Deno.test("a value that does not fit is refused with the field's name", () => {
  const cases: [string, unknown, string][] = [
    ["fs_entry", { cwd_id: 1 }, "field root_id: is missing"],
    ["fs_entry", { cwd_id: -1, root_id: 1 }, "field cwd_id: -1 is not within"],
    ["fs_entry", { cwd_id: 2 ** 32, root_id: 1 }, "field cwd_id: 4294967296"],
    ["fs_entry", { cwd_id: 1.5, root_id: 1 }, "field cwd_id: is 1.5"],
    ["fs_entry", { cwd_id: 1n, root_id: 1 }, "field cwd_id: is a bigint"],
    ["rlimit_entry", { cur: 1n << 64n, max: 0n }, "field cur: 18446744073709"],
    ["rlimit_entry", { cur: 1, max: 0n }, "field cur: is 1, not a bigint"],
    ["rlimit_entry", { cur: -1n, max: 0n }, "field cur: -1 is not within"],
    ["signal_queue_entry", {}, "field signals: is missing"],
    [
      "signal_queue_entry",
      { signals: [{ siginfo: new Uint8Array() }, { siginfo: "x" }] },
      "field signals[1].siginfo: is a string, not a Uint8Array",
    ],
    [
      "utsns_entry",
      { nodename: "a\0b", domainname: "" },
      "field nodename: holds a zero byte",
    ],
    ["itimer_entry", null, "is null, not a itimer_entry"],
  ];
  for (const [name, value, words] of cases) {
    assertThrows(() => encode(name, value), FieldError, words);
  }
});
