import { assertEquals } from "@std/assert";
import type { Description } from "../files/descriptors.ts";
import type { Watched } from "../files/epoll.ts";
import { FileTable, NO_OWNER } from "../files/file_table.ts";
import type { KernelObject } from "../files/kernel_objects.ts";
import { describeObject, describeObjects } from "./describe_objects.ts";

function description(
  pid: number,
  fd: number,
  object: KernelObject,
  watched?: readonly Watched[],
): Description {
  return {
    kind: "object",
    link: `anon_inode:[${object.kind}]`,
    flags: 2,
    pos: 0n,
    owner: NO_OWNER,
    status: {
      dev: 0n,
      ino: 1n,
      mode: 0,
      nlink: 1n,
      uid: 0,
      gid: 0,
      rdev: 0n,
      size: 0n,
      allocated: 0n,
    },
    mountId: 0,
    unconnected: false,
    target: undefined,
    place: { pid, fd },
    object,
    watched,
  };
}

function eventfd(pid: number, fd: number, semaphore = false): Description {
  return description(pid, fd, { kind: "eventfd", count: 1n, semaphore });
}

function epoll(
  pid: number,
  fd: number,
  entries: readonly (readonly [number: number, target: Description])[],
): Description {
  const watched = entries.map(([number, { place }], i) => ({
    number,
    events: 1,
    data: BigInt(i),
    pos: 0n,
    inode: 7n,
    device: 16,
    target: place,
  }));
  return description(pid, fd, { kind: "epoll", watched }, watched);
}

/** Descriptions by their numbers, for each process. */
function described(tables: readonly (readonly [number, Description][])[]) {
  const files = new FileTable();
  const ids = new Map<Description, number>();
  const described = describeObjects(
    tables.map((table) => ({
      descriptions: table.map(([, description]) => description),
      descriptors: table.map(([fd, description]) => {
        const id = files.once(
          description,
          () => files.add((id) => describeObject(id, description)),
        );
        ids.set(description, id);
        return { fd, id, flags: 0, type: files.entries[id - 1].type };
      }),
    })),
    files,
  );
  return { ...described, files: files.entries, ids };
}

Deno.test("what CRIU's entries tell needs no extension", () => {
  const target = eventfd(1, 5);
  const watching = epoll(1, 4, [[5, target], [6, target]]);
  const { extensions, features, files, ids } = described([[
    [4, watching],
    [5, target],
    [6, target],
  ]]);
  assertEquals([extensions, [...features]], [[], []]);
  const { epfd } = files[ids.get(watching)! - 1];
  assertEquals(epfd!.tfd.map(({ tfd, data }) => [tfd, data]), [
    [5, 0n],
    [6, 1n],
  ]);
});

Deno.test("a semaphore is told, and CRIU must not restore it", () => {
  const semaphore = eventfd(1, 5, true);
  const { extensions, features } = described([[[5, semaphore]]]);
  assertEquals(extensions, [{ id: 1, semaphore: true, watched: [] }]);
  assertEquals([...features], ["ckpt:eventfd"]);
});

Deno.test("a number that was closed or given away is told; CRIU gets another of the file", () => {
  const [moved, other] = [eventfd(1, 7), eventfd(1, 5)];
  const watching = epoll(1, 4, [[5, moved], [9, moved]]);
  const { extensions, features, files, ids } = described([[
    [4, watching],
    [5, other],
    [7, moved],
  ]]);
  const file = ids.get(moved)!;
  assertEquals(extensions, [{
    id: ids.get(watching)!,
    busy_polling: undefined,
    watched: [{ index: 0, number: 5, file }, { index: 1, number: 9, file }],
  }]);
  assertEquals([...features], []);
  const { epfd } = files[ids.get(watching)! - 1];
  assertEquals(epfd!.tfd.map(({ tfd }) => tfd), [7, 7]);
});

Deno.test("a file that the first process does not have is one that CRIU could not find", () => {
  const own = eventfd(2, 5);
  const watching = epoll(1, 4, [[5, own]]);
  const { extensions, features, ids } = described([
    [[4, watching], [5, eventfd(1, 5)]],
    [[4, watching], [5, own]],
  ]);
  assertEquals(extensions, [{
    id: ids.get(watching)!,
    busy_polling: undefined,
    watched: [{ index: 0, number: 5, file: ids.get(own)! }],
  }]);
  assertEquals([...features], ["ckpt:watched"]);
});
