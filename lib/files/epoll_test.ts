import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  type ckpt_watched_entry,
  fd_types,
  type file_entry,
} from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import { readFdInfo } from "../proc/read.ts";
import { NO_OBJECTS } from "./object_images.ts";
import { lookAtDescriptors, TreeLook } from "./descriptors.ts";
import {
  type Candidate,
  Candidates,
  dumpEpoll,
  dumpWatched,
  parseEpoll,
  type WatchedLine,
} from "./epoll.ts";
import { parseEventfd } from "./eventfd.ts";
import { NO_OWNER } from "./file_table.ts";
import { watchedAmong } from "./kernel_objects.ts";
import { withRestored } from "./testing/restored_task.ts";

const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
/** What the kernel adds. */
const EPOLLERR_HUP = 0x18;
const EPOLLONESHOT = 0x4000_0000;
const EPOLLET = 0x8000_0000;

Deno.test("what is watched is read from what fdinfo tells", () => {
  const lines = [
    "tfd:        3 events: 90000019 data: deadbeefcafef00d  pos:0 ino:40e sdev:10",
    "tfd:       16 events: 40000000 data:                0  pos:-1 ino:1f sdev:800001",
  ];
  assertEquals(parseEpoll(lines).watched, [
    {
      number: 3,
      events: 0x90000019,
      data: 0xdeadbeefcafef00dn,
      pos: 0n,
      inode: 0x40en,
      device: 0x10,
    },
    {
      number: 16,
      events: EPOLLONESHOT,
      data: 0n,
      pos: -1n,
      inode: 0x1fn,
      device: 0x800001,
    },
  ]);
  assertEquals(parseEpoll([]).watched, []);
  assertThrows(() => parseEpoll(["tfd: 3 events: 1"]), CkptError);
});

function line(number: number, rest: Partial<WatchedLine> = {}): WatchedLine {
  return {
    number,
    events: EPOLLIN,
    data: 0n,
    pos: 0n,
    inode: 7n,
    device: 0x10,
    ...rest,
  };
}

function candidate(
  pid: number,
  fd: number,
  rest: Partial<Candidate> = {},
): Candidate {
  return {
    pid,
    fd,
    link: "anon_inode:[eventfd]",
    status: { ino: 7n, dev: 0x10n },
    sameAs: undefined,
    ...rest,
  };
}

function candidatesOf(all: readonly Candidate[]): Candidates {
  return new Candidates(
    [...Map.groupBy(all, ({ pid }) => pid)]
      .map(([tid, descriptors]) => ({ tid, descriptors })),
  );
}

Deno.test("of an entry, the file is found behind its number or elsewhere", () => {
  const epoll = { pid: 1, fd: 9 };
  const other = { status: { ino: 8n, dev: 0x10n } };
  const cases: [
    what: string,
    all: Candidate[],
    /** Which candidates the kernel says yes to. */
    yes: (pid: number, fd: number) => boolean,
    found: { pid: number; fd: number } | undefined,
  ][] = [
    ["by its number", [candidate(1, 5)], () => true, { pid: 1, fd: 5 }],
    [
      "where the number is another file now",
      [candidate(1, 5), candidate(1, 6)],
      (_, fd) => fd === 6,
      { pid: 1, fd: 6 },
    ],
    [
      "by the number of another process",
      [candidate(1, 5), candidate(2, 5)],
      (pid) => pid === 2,
      { pid: 2, fd: 5 },
    ],
    [
      "by where its description was first seen",
      [candidate(1, 4), candidate(1, 5, { sameAs: { pid: 1, fd: 4 } })],
      (_, fd) => fd === 5,
      { pid: 1, fd: 4 },
    ],
    ["nowhere", [candidate(1, 5)], () => false, undefined],
    ["not in another file", [candidate(1, 5, other)], () => true, undefined],
    [
      "a socket by its inode alone",
      [candidate(1, 5, { link: "socket:[7]" })],
      () => {
        throw new Error("nobody should ask");
      },
      { pid: 1, fd: 5 },
    ],
  ];
  for (const [what, all, yes, found] of cases) {
    const [[watched]] = candidatesOf(all).resolve(
      [{ place: epoll, watched: [line(5)] }],
      (questions) =>
        questions.map(({ candidate: { pid, fd } }) => yes(pid, fd)),
    );
    assertEquals(watched?.target, found, what);
  }
});

Deno.test("entries with one number are told apart by their order", () => {
  const asked: [number, number, number][] = [];
  const watched = [line(5), line(6), line(5)];
  candidatesOf([candidate(1, 5), candidate(1, 6)]).resolve(
    [{ place: { pid: 1, fd: 9 }, watched }],
    (questions) =>
      questions.map(({ candidate: { fd }, number, nth }) =>
        asked.push([fd, number, nth]) > 0
      ),
  );
  assertEquals(asked, [[5, 5, 0], [6, 6, 0], [5, 5, 1]]);
});

/** Eventfds are told apart by their counts. */
const FIRST_COUNT = 100n;

/** Random epolls and eventfds in two or three processes, as images. */
class Scenario {
  readonly #random: () => number;
  readonly files: file_entry[] = [];
  readonly tables: Record<number, number>[];
  readonly watched = new Map<number, Map<number, ckpt_watched_entry>>();
  /** "number events data id", by the ids of the epolls. */
  readonly expected = new Map<number, string[]>();

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    const [eventfds, epolls] = [1 + this.#below(5), 1 + this.#below(3)];
    this.tables = Array.from({ length: 1 + this.#below(3) }, () => ({}));
    for (let id = 1; id <= eventfds; id++) {
      this.files.push({
        type: fd_types.EVENTFD,
        id,
        efd: {
          id,
          flags: 2,
          fown: NO_OWNER,
          counter: FIRST_COUNT + BigInt(id),
        },
      });
    }
    for (let id = 1; id <= eventfds + epolls; id++) {
      for (let i = 0; i <= this.#below(3); i++) this.#open(id);
    }
    for (let i = 0; i < epolls; i++) this.#addEpoll(eventfds + 1 + i);
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #open(id: number): void {
    const table = this.tables[this.#below(this.tables.length)];
    let fd = this.#below(30);
    while (fd in table) fd++;
    table[fd] = id;
  }

  #addEpoll(id: number): void {
    const table = this.tables.find((table) =>
      Object.values(table).includes(id)
    )!;
    const extensions = new Map<number, ckpt_watched_entry>();
    const pairs = new Set<string>();
    const expected: string[] = [];
    const tfd = [];
    for (let i = 0; i < this.#below(8); i++) {
      // Of epolls, only those that were made before: no circles.
      const file = 1 + this.#below(id - 1);
      const number = this.#below(40);
      if (pairs.has(`${number} ${file}`)) continue;
      pairs.add(`${number} ${file}`);
      const { efd } = this.files[file - 1];
      const fired = efd !== undefined && this.#below(4) === 0;
      const events = fired
        ? EPOLLONESHOT
        : ([EPOLLIN, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLET][this.#below(3)] |
          EPOLLERR_HUP) >>> 0;
      const data = BigInt(this.#below(1000));
      if (table[number] !== file) {
        extensions.set(tfd.length, { index: tfd.length, number, file });
      }
      tfd.push(dumpWatched(line(number, { events, data }), number));
      expected.push(`${number} ${events} ${data} ${file}`);
    }
    this.watched.set(id, extensions);
    this.expected.set(id, expected.sort());
    const epfd = dumpEpoll(id, tfd, 2, NO_OWNER);
    this.files.push({ type: fd_types.EVENTPOLL, id, epfd });
  }

  run(): void {
    const { files, tables, watched } = this;
    withRestored(files, tables, (pids) => this.#compare(pids), {
      objects: { ...NO_OBJECTS, watched },
    });
  }

  #compare(pids: readonly number[]): void {
    const look = new TreeLook();
    const found = watchedAmong(
      pids.map((tid) => ({ tid, descriptors: lookAtDescriptors(tid, look) })),
    );
    for (const [place, entries] of found) {
      const [pid, fd] = place.split(" ").map(Number);
      const id = this.tables[pids.indexOf(pid)][fd];
      assertEquals(
        entries.map((entry) => {
          const { number, events, data, target } = entry!;
          return `${number} ${events} ${data} ${this.#idOf(pids, target)}`;
        }).sort(),
        this.expected.get(id),
        `epoll ${id}`,
      );
    }
    assertEquals(found.size, this.expected.size);
    this.tables.forEach((table, i) => {
      for (const [fd, id] of Object.entries(table)) {
        if (this.files[id - 1].efd === undefined) continue;
        const { count } = parseEventfd(readFdInfo(pids[i], Number(fd)).extra);
        assertEquals(count, FIRST_COUNT + BigInt(id), "a number was changed");
      }
    });
  }

  #idOf(
    pids: readonly number[],
    { pid, fd }: { pid: number; fd: number },
  ): number {
    return this.tables[pids.indexOf(pid)][fd];
  }
}

Deno.test("of random epolls, all entries are watched again by their numbers", () => {
  for (let seed = 0; seed < 60; seed++) {
    try {
      new Scenario(seed).run();
    } catch (error) {
      throw new Error(`with seed ${seed}`, { cause: error });
    }
  }
});

Deno.test("what has fired and is not ready waits for errors only", () => {
  const epfd = dumpEpoll(
    2,
    [dumpWatched(line(5, { events: EPOLLONESHOT }), 5)],
    2,
    NO_OWNER,
  );
  const sgfd = { id: 1, flags: 2, fown: NO_OWNER, sigmask: 1n };
  const files = [
    { type: fd_types.SIGNALFD, id: 1, sgfd },
    { type: fd_types.EVENTPOLL, id: 2, epfd },
  ];
  withRestored(files, [{ 5: 1, 6: 2 }], ([pid]) => {
    const { watched } = parseEpoll(readFdInfo(pid, 6).extra);
    assertEquals(watched.map(({ events }) => events), [
      EPOLLONESHOT | EPOLLERR_HUP,
    ]);
  });
});
