import { assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import type { packet_ring } from "../image/schema.gen.ts";
import {
  BLOCK,
  frameAt,
  partsOf,
  settleBlocks,
  settleFrames,
  settleSent,
  STATUS,
  statusAt,
  TPACKET_V3,
  wordsOf,
} from "./packet_rings.ts";

const RING: packet_ring = {
  block_size: 4096,
  block_nr: 3,
  frame_size: 1536,
  frame_nr: 6,
  retire_tmo: 0,
  sizeof_priv: 0,
  features: 0,
};

Deno.test("frames begin anew in each block", () => {
  assertEquals(
    [0, 1, 2, 3, 5].map((frame) => frameAt(RING, frame)),
    [0, 1536, 4096, 5632, 9728],
  );
});

/** The status of each frame or block. */
function statuses(content: Uint8Array<ArrayBuffer>, places: number[]) {
  return places.map((at) => wordsOf(content, at).getUint32(0, true));
}

Deno.test("frames that were begun since are lost, those of before stay", () => {
  for (const [from, to, left] of [[1, 1, 6], [1, 3, 4], [5, 1, 4]]) {
    const content = new Uint8Array(3 * 4096);
    const places = [0, 1, 2, 3, 4, 5].map((frame) => frameAt(RING, frame));
    for (const at of places) content[at] = STATUS.user;
    settleFrames(content, RING, from, to);
    const found = statuses(content, places);
    assertEquals(found.filter((one) => one === STATUS.user).length, left);
    assertEquals(found[from], from === to ? STATUS.user : 0);
    assertEquals(found[to], STATUS.user);
  }
});

Deno.test("frames on their way have been sent, those to be sent stay", () => {
  for (const version of [0, 1, TPACKET_V3]) {
    const content = new Uint8Array(3 * 4096);
    const places = [0, 1, 2].map((frame) =>
      frameAt(RING, frame) + statusAt(version)
    );
    content[places[0]] = STATUS.sendRequest;
    content[places[1]] = STATUS.sending;
    settleSent(content, RING, version);
    assertEquals(statuses(content, places), [STATUS.sendRequest, 0, 0]);
  }
});

/** A ring of blocks; each given as how many packets are in it, and its status. */
function blocksOf(
  ...blocks: (readonly [packets: number, status: number])[]
): Uint8Array<ArrayBuffer> {
  const content = new Uint8Array(blocks.length * 4096);
  blocks.forEach(([packets, status], n) => {
    const view = wordsOf(content, n * 4096);
    view.setUint32(BLOCK.status, status, true);
    view.setUint32(BLOCK.packets, packets, true);
    view.setUint32(BLOCK.first, BLOCK.header, true);
    for (let i = 0; i < packets; i++) {
      const at = BLOCK.header + i * 100;
      view.setUint32(at, 100, true);
      view.setUint32(at + 4, 1000 + i, true);
    }
  });
  return content;
}

const [FREE, USED] = [STATUS.kernel, STATUS.user];

Deno.test("a block that is being filled is given to the program", () => {
  const content = blocksOf([1, USED], [3, FREE], [0, FREE]);
  const at = { received: 1, frozen: false, sent: 0 };
  // The third packet came later, and is left out.
  assertEquals(settleBlocks(content, RING, at, 2, 1), {
    received: 2,
    stuck: undefined,
  });
  const view = wordsOf(content, 4096);
  assertEquals(view.getUint32(BLOCK.status, true), USED | STATUS.timedOut);
  assertEquals(view.getUint32(BLOCK.packets, true), 2);
  assertEquals(view.getUint32(BLOCK.length, true), BLOCK.header + 200);
  assertEquals(view.getUint32(BLOCK.lastTime, true), 1001);
  assertEquals(view.getUint32(BLOCK.header, true), 100);
  assertEquals(view.getUint32(BLOCK.header + 100, true), 0);
});

Deno.test("after a block that is being filled comes one that the program has", () => {
  const content = blocksOf([1, USED], [0, FREE], [3, FREE]);
  const at = { received: 2, frozen: false, sent: 0 };
  assertEquals(settleBlocks(content, RING, at, 3, 2), {
    received: 0,
    stuck: true,
  });
});

Deno.test("of blocks that were filled since nothing is left", () => {
  const content = blocksOf([2, USED], [2, USED], [1, FREE]);
  const at = { received: 0, frozen: false, sent: 0 };
  assertEquals(settleBlocks(content, RING, at, 1, 2), {
    received: 1,
    stuck: undefined,
  });
  assertEquals(
    statuses(content, [0, 1, 2].map((n) => n * 4096 + BLOCK.status)),
    [USED | STATUS.timedOut, FREE, FREE],
  );
});

Deno.test("a kernel that waits for a block waits on, unless that was given back", () => {
  const at = { received: 1, frozen: true, sent: 0 };
  const waits = blocksOf([1, USED], [2, USED], [1, USED]);
  assertEquals(settleBlocks(waits, RING, at, 2, 1), {
    received: 1,
    stuck: true,
  });
  // What is in it is old.
  const free = blocksOf([1, USED], [2, FREE], [1, USED]);
  assertEquals(settleBlocks(free, RING, at, 2, 1), {
    received: 1,
    stuck: undefined,
  });
});

Deno.test("a block whose packets do not follow each other is lost", () => {
  for (
    const [where, value] of [[BLOCK.first, 5000], [BLOCK.first, 0], [48, 0]]
  ) {
    const content = blocksOf([2, FREE], [0, FREE], [0, FREE]);
    wordsOf(content).setUint32(where, value, true);
    const at = { received: 0, frozen: false, sent: 0 };
    assertEquals(settleBlocks(content, RING, at, 2, 0), {
      received: 0,
      stuck: undefined,
    });
    assertEquals(statuses(content, [BLOCK.status]), [FREE]);
  }
});

Deno.test("the parts of a ring are all that is not zero", () => {
  const random = seededRandom(5);
  for (let round = 0; round < 50; round++) {
    const content = new Uint8Array(8 * 4096);
    for (let i = 0; i < 5; i++) {
      if (random() < 0.7) content[Math.floor(random() * content.length)] = 1;
    }
    const whole = new Uint8Array(content.length);
    const parts = partsOf(content);
    for (const { offset, content } of parts) whole.set(content, offset);
    assertEquals(whole, content);
    parts.slice(1).forEach(({ offset }, i) => {
      assertEquals(offset > parts[i].offset + parts[i].content.length, true);
    });
  }
});
