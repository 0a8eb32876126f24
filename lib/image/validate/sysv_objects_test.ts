import { assertEquals } from "@std/assert";
import type { Entry } from "../kinds.ts";
import { minimalImage, writeTree } from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

/** Of the dumper in the minimal image. */
const NAMESPACE = 3;

interface Parts {
  queues: Entry<"ipcns-msg">[];
  sets: Entry<"ipcns-sem">[];
}

function desc(id: number, key: number) {
  return { key, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, id };
}

/** What is wrong with an image that has two objects of each kind. */
function wrong(change: (parts: Parts) => void): string[] {
  const message = { mtype: 1n, data: Uint8Array.of(1, 2, 3) };
  const parts: Parts = {
    queues: [
      { desc: desc(5, 7), qbytes: 100, qnum: 1, extra: [message] },
      { desc: desc(6, 0), qbytes: 100, qnum: 0, extra: [] },
    ],
    sets: [
      { desc: desc(5, 7), nsems: 2, extra: Uint16Array.of(0, 32767) },
      { desc: desc(6, 0), nsems: 1, extra: Uint16Array.of(1) },
    ],
  };
  change(parts);
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeTree(directory, [minimalImage()], [
      ["ipcns-msg", NAMESPACE, parts.queues],
      ["ipcns-sem", NAMESPACE, parts.sets],
    ]);
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const MSG = `ipcns-msg-${NAMESPACE}.img`;
const SEM = `ipcns-sem-${NAMESPACE}.img`;

const WRONG: Record<string, [(parts: Parts) => void, string[]]> = {
  "nothing": [() => {}, []],
  "an id twice": [
    ({ queues }) => queues[1].desc.id = 5,
    [`${MSG}, entry 1, field desc.id: 5 is there twice`],
  ],
  "an id that none can have": [
    ({ sets }) => sets[0].desc.id = 2 ** 31,
    [`${SEM}, entry 0, field desc.id: 2147483648 is no id`],
  ],
  "a key twice": [
    ({ sets }) => sets[1].desc.key = 7,
    [`${SEM}, entry 1, field desc.key: 7 is there twice`],
  ],
  "an unknown bit in the mode": [
    ({ queues }) => queues[1].desc.mode = 0o1600,
    [`${MSG}, entry 1, field desc.mode: 01600 has unknown bits`],
  ],
  "a message that has no type": [
    ({ queues }) => queues[0].extra[0].mtype = 0n,
    [`${MSG}, entry 0, field message 0: 0 is no type of a message`],
  ],
  "a value that no semaphore can have": [
    ({ sets }) => sets[0].extra[1] = 32768,
    [`${SEM}, entry 0: 32768 is no value of a semaphore`],
  ],
  "a set without semaphores": [
    ({ sets }) =>
      Object.assign(sets[1], { nsems: 0, extra: new Uint16Array() }),
    [`${SEM}, entry 1, field nsems: is 0`],
  ],
};

for (const [what, [change, expected]] of Object.entries(WRONG)) {
  Deno.test(`in System V queues and semaphores is wrong: ${what}`, () => {
    assertEquals(wrong(change), expected);
  });
}
