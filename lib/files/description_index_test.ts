import { assert, assertEquals } from "@std/assert";
import { openPidfd } from "../ffi/pidfd.ts";
import { addressOf, close, O, open, syscall } from "../ffi/syscall.ts";
import { seededRandom } from "../image/testing/random.ts";
import { FactTable } from "./descriptor_facts.ts";
import { DescriptionIndex, isSameDescription } from "./description_index.ts";

/** Looks at some of ckpt's own descriptors. */
function look(fds: readonly number[], earlier?: FactTable): FactTable {
  const pidfd = openPidfd(Deno.pid);
  try {
    return FactTable.ask(Deno.pid, pidfd, fds, earlier);
  } finally {
    close(pidfd);
  }
}

/**
 * Opens /dev/null, or descriptors of it again.
 *
 * @returns by each number the first that has the same description, ascending
 */
function make(count: number, random: () => number): Map<number, number> {
  const made: [number, number][] = [];
  for (let i = 0; i < count; i++) {
    const [first] = made[Math.floor(random() * 2 * made.length)] ?? [];
    const fd = first === undefined
      ? open("/dev/null", O.RDONLY)
      : Number(syscall("dup", BigInt(first)));
    made.push([fd, made.find(([other]) => other === first)?.[1] ?? fd]);
  }
  const lowest = new Map<number, number>();
  made.sort(([a], [b]) => a - b);
  for (const [fd, group] of made) {
    if (!lowest.has(group)) lowest.set(group, fd);
  }
  return new Map(made.map(([fd, group]) => [fd, lowest.get(group)!]));
}

Deno.test("every description is known by its first place", () => {
  const random = seededRandom(3);
  for (let round = 0; round < 20; round++) {
    const made = make(100, random);
    const fds = [...made.keys()];
    try {
      const index = new DescriptionIndex();
      const half = fds.slice(0, 50);
      const expected = (fd: number) => {
        const first = made.get(fd)!;
        return first === fd ? undefined : { pid: Deno.pid, fd: first };
      };
      assertEquals(index.find(Deno.pid, look(half)), half.map(expected));
      const rest = fds.slice(50);
      assertEquals(index.find(Deno.pid, look(rest)), rest.map(expected));
      // All are known now.
      assert(
        index.find(Deno.pid, look(fds)).every((place, i) =>
          place?.fd === made.get(fds[i])
        ),
      );
      const [a, b] = fds.map((fd) => ({ pid: Deno.pid, fd }));
      assertEquals(isSameDescription(a, b), made.get(b.fd) === a.fd);
    } finally {
      fds.forEach(close);
    }
  }
});

Deno.test("what has changed since an earlier look is told", () => {
  const pair = [open("/dev/zero", O.RDONLY), open("/etc/passwd", O.RDONLY)];
  const third = open("/etc/passwd", O.RDONLY);
  const fds = [...pair, third].sort((a, b) => a - b);
  try {
    const before = look(fds);
    assertEquals(fds.map((_, i) => before.same(i)), fds.map(() => undefined));
    syscall("lseek", BigInt(pair[1]), 5n);
    const after = look(fds.slice(1), before);
    assertEquals(
      fds.slice(1).map((fd, i) => after.same(i) ?? fd),
      fds.slice(1).map((fd) => fd === pair[1] ? fd : fds.indexOf(fd)),
    );
    assertEquals(after.get(fds.indexOf(pair[1]) - 1).info.pos, 5n);
  } finally {
    fds.forEach(close);
  }
});

Deno.test("texts of any length are read whole", () => {
  const epoll = Number(syscall("epoll_create1", BigInt(O.CLOEXEC)));
  const watched: number[] = [];
  try {
    for (let i = 0; i < 300; i++) {
      const fd = Number(syscall("eventfd2", 0n, BigInt(O.CLOEXEC)));
      watched.push(fd);
      const event = new Uint8Array(12);
      syscall("epoll_ctl", BigInt(epoll), 1n, BigInt(fd), addressOf(event));
    }
    const table = look([epoll]);
    const { link, info } = table.get(0);
    assertEquals(link, "anon_inode:[eventpoll]");
    assertEquals(info.extra.length, 300);
    // It has no place in an earlier table.
    assertEquals(look([epoll], table).same(0), undefined);
    assertEquals(new DescriptionIndex().find(Deno.pid, table), [undefined]);
  } finally {
    [epoll, ...watched].forEach(close);
  }
});
