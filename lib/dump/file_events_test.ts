import { assertEquals } from "@std/assert";
import { parseFanotify, parseInotify } from "./file_events.ts";

/** As fanotify(7) gives an event about one file. */
function fanotifyEvent(
  mask: number,
  pid: number,
  handle: Uint8Array,
): Uint8Array {
  const info = 12 + 8 + handle.length;
  const bytes = new Uint8Array(24 + info);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint8(4, 3);
  view.setUint16(6, 24, true);
  view.setBigUint64(8, BigInt(mask), true);
  view.setInt32(16, -1, true);
  view.setInt32(20, pid, true);
  view.setUint8(24, 1);
  view.setUint16(26, info, true);
  view.setUint32(36, handle.length, true);
  view.setUint32(40, 1, true);
  bytes.set(handle, 44);
  return bytes;
}

function joined(...parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, { length }) => n + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

Deno.test("events of fanotify tell the handle, who it was, and the gravest that happened", () => {
  const handle = Uint8Array.of(1, 2, 3, 4);
  assertEquals(
    parseFanotify(joined(
      fanotifyEvent(0x2, 7, handle),
      fanotifyEvent(0x20, 7, handle),
      fanotifyEvent(0x406, 8, handle),
    )),
    [
      { key: "040000000100000001020304", pid: 7, what: "it was modified" },
      { key: "040000000100000001020304", pid: 8, what: "it was deleted" },
    ],
  );
});

Deno.test("events of inotify tell the watch", () => {
  const bytes = new Uint8Array(16 + 8 + 16);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 5, true);
  view.setUint32(4, 0x800, true);
  view.setUint32(12, 8, true);
  view.setInt32(24, 6, true);
  view.setUint32(28, 0x4, true);
  assertEquals(parseInotify(bytes), [
    { key: 5, pid: undefined, what: "it was renamed" },
    {
      key: 6,
      pid: undefined,
      what: "its permissions, times, attributes or names were changed",
    },
  ]);
});

Deno.test("events that are cut off or damaged come to an end", () => {
  const whole = joined(
    fanotifyEvent(0x2, 7, new Uint8Array(12)),
    fanotifyEvent(0x4, 7, new Uint8Array(8)),
  );
  let random = 7;
  for (let i = 0; i < 3000; i++) {
    random = Math.imul(random, 1103515245) + 12345 >>> 0;
    const damaged = whole.slice(0, random % (whole.length + 1));
    if (damaged.length > 0) damaged[(random >>> 8) % damaged.length] = random;
    parseFanotify(damaged);
    parseInotify(damaged);
  }
});
