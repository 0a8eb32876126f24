import { assertEquals, assertMatch } from "@std/assert";
import type { FileStatus } from "../ffi/syscall.ts";
import type { UnixDiag } from "./sock_diag.ts";
import { SOCK } from "./socket_kind.ts";
import {
  boundFile,
  describeUnixSocket,
  nameText,
  pathOf,
  type SeenUnixSocket,
  STATE,
  UnixListeners,
  type UnixNeighbours,
  unixSocketProblem,
} from "./unix_socket.ts";

const STATUS: FileStatus = {
  dev: 1n,
  ino: 7n,
  mode: 0o140755,
  nlink: 1n,
  uid: 12,
  gid: 34,
  rdev: 0n,
  size: 0n,
  allocated: 0n,
};

Deno.test("the file of a socket is found by the name it was bound to, or why not", () => {
  const there = (...paths: string[]) => (at: string) =>
    paths.includes(at) ? STATUS : undefined;
  const names = (...list: string[]) => () => list.map((name) => ({ name }));
  const access = { mode: 0o755, uid: 12, gid: 34 };
  const gone = { ...STATUS, nlink: 0n };
  const none = {
    directory: undefined,
    deleted: false,
    otherNames: [],
    why: undefined,
    access,
  };
  assertEquals(boundFile("/a/b", "/a/b", STATUS, there("/a/b"), names()), none);
  // By way of a symbolic link.
  assertEquals(boundFile("/l/b", "/a/b", STATUS, there("/l/b"), names()), none);
  assertEquals(
    boundFile("b", "/a/b", STATUS, there("/a/b"), names()),
    { ...none, directory: "/a" },
  );
  assertEquals(
    boundFile("././/b", "/a/b", STATUS, there("/a/b"), names()),
    { ...none, directory: "/a" },
  );
  assertEquals(
    boundFile("b", "/b", STATUS, there("/b"), names()),
    { ...none, directory: "/" },
  );
  assertEquals(
    boundFile("/a/b", "/a/b (deleted)", gone, there("/a/b"), names()),
    { ...none, deleted: true },
  );
  assertMatch(
    boundFile("/a/b", "/a/c", STATUS, there("/a/c"), names()).why!,
    /is \/a\/c now, and not \/a\/b/,
  );
  // It was renamed, and its old name is free, or not.
  const renamed = { ...none, deleted: true, otherNames: ["/a/c"] };
  assertEquals(
    boundFile("/a/b", "/a/c", STATUS, there("/a/c"), names("c", "d")),
    renamed,
  );
  assertEquals(
    boundFile(
      "/a/b",
      "/a/c",
      STATUS,
      (at) =>
        at === "/a/c"
          ? STATUS
          : at === "/a/b"
          ? { ...STATUS, ino: 8n }
          : undefined,
      names("b", "c"),
    ),
    renamed,
  );
  assertEquals(
    boundFile("b", "/a/c", STATUS, there("/a/c"), names("c")),
    renamed,
  );
  assertEquals(
    boundFile("b", "/a/c (deleted)", gone, there(), names()),
    { ...none, deleted: true },
  );
  // It was renamed, and got its old name besides.
  assertEquals(
    boundFile(
      "/a/b",
      "/a/c",
      { ...STATUS, nlink: 2n },
      there("/a/b", "/a/c"),
      names("b", "c"),
    ),
    { ...none, otherNames: ["/a/c"] },
  );
});

Deno.test("other hard links of the file are found in its directory, or missed", () => {
  const found = (nlink: bigint, link: string, ...paths: string[]) => {
    const { deleted, otherNames, why } = boundFile(
      "/a/b",
      link,
      { ...STATUS, nlink },
      (at) =>
        paths.includes(at)
          ? STATUS
          : at === "/a/x"
          ? { ...STATUS, ino: 99n }
          : undefined,
      () => ["b", "c", "d", "x"].map((name) => ({ name })),
    );
    return [deleted, otherNames.join(" "), why];
  };
  assertEquals(found(2n, "/a/b", "/a/b", "/a/d"), [false, "/a/d", undefined]);
  assertEquals(found(1n, "/a/b (deleted)", "/a/c"), [true, "/a/c", undefined]);
  assertEquals(found(3n, "/a/b", "/a/b", "/a/d"), [
    false,
    "/a/d",
    "the file it is bound to has 1 more names, which are not in its directory",
  ]);
  assertMatch(`${found(1n, "/a/b (deleted)")[2]}`, /is \/a\/b now/);
});

const encoder = new TextEncoder();

Deno.test("names are written as people know them", () => {
  assertEquals(nameText(encoder.encode("/run/x\0")), "/run/x");
  assertEquals(nameText(encoder.encode("\0x\0y")), "@x@y");
  assertEquals(nameText(new Uint8Array(0)), "without a name");
  assertEquals(pathOf(encoder.encode("/run/x")), "/run/x");
});

function seen(diag: Partial<UnixDiag>, rest: Partial<SeenUnixSocket> = {}) {
  return {
    family: "unix" as const,
    diag: {
      ino: 1,
      type: SOCK.STREAM,
      state: STATE.ESTABLISHED,
      name: new Uint8Array(0),
      fileIno: undefined,
      fileDevice: undefined,
      peer: undefined,
      pending: [],
      backlog: 0,
      waiting: 0,
      shutdown: 0,
      ...diag,
    },
    options: { opts: {} as SeenUnixSocket["options"]["opts"], further: [] },
    peer: undefined,
    file: undefined,
    hasError: false,
    unread: 0,
    canBeRead: false,
    ...rest,
  };
}

function among(...sockets: SeenUnixSocket[]): UnixNeighbours {
  return {
    of: (ino) => sockets.find(({ diag }) => diag.ino === ino),
    listeners: () => new UnixListeners(sockets),
    holder: (ino) => ino === 99 ? "task 5 (other)" : undefined,
    mayBeUnseen: false,
    outside: () => undefined,
    isExternal: (ino) => ino === 77,
  };
}

const NAME = encoder.encode("\0name");

Deno.test("what cannot be saved is told with its reason", () => {
  const table: [SeenUnixSocket, SeenUnixSocket[], RegExp | undefined][] = [
    [seen({ peer: 2 }), [seen({ ino: 2, peer: 1 })], undefined],
    [seen({ peer: 99 }), [], /^its peer is a socket of task 5 \(other\)$/],
    [seen({ peer: 98 }), [], /^its peer is a socket of a process outside/],
    [seen({ peer: 0, shutdown: 3 }), [], undefined],
    [seen({ peer: 0 }), [], /waits to be accepted by a process outside/],
    [seen({ peer: 0 }), [seen({ ino: 2, pending: [1] })], undefined],
    [
      seen({ peer: 0 }, { unread: 5 }),
      [seen({ ino: 2, pending: [1] })],
      undefined,
    ],
    [
      seen({ state: STATE.LISTEN, pending: [99], waiting: 1 }),
      [],
      /^a connection of task 5 \(other\) waits to be accepted$/,
    ],
    [
      seen({ state: STATE.LISTEN, pending: [0], waiting: 1 }),
      [],
      undefined,
    ],
    [
      seen({ type: SOCK.DGRAM, peer: 2 }),
      [seen({ ino: 2, type: SOCK.DGRAM, peer: 3, name: NAME })],
      /its peer has connected to another/,
    ],
    [
      seen({ type: SOCK.DGRAM, peer: 2 }),
      [seen({ ino: 2, type: SOCK.DGRAM })],
      /its peer has no name/,
    ],
    [
      seen({ type: SOCK.DGRAM, peer: 2 }),
      [seen({ ino: 2, type: SOCK.DGRAM, name: NAME })],
      undefined,
    ],
    [seen({ peer: 2 }, { hasError: true }), [seen({ ino: 2, peer: 1 })], /err/],
    // The peer has closed with bytes unread: that can be made again.
    [seen({ peer: 0, shutdown: 3 }, { hasError: true }), [], undefined],
  ];
  for (const [socket, others, why] of table) {
    const problem = unixSocketProblem(socket, among(socket, ...others));
    if (why === undefined) assertEquals(problem, undefined);
    else assertMatch(problem ?? "", why);
  }
});

const NO_OWNER = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };

Deno.test("one that waits to be accepted has the one that listens as its peer", () => {
  const client = seen({ peer: 0 });
  const listener = seen({ ino: 2, state: STATE.LISTEN, pending: [1] });
  const others = among(client, listener);
  const entry = describeUnixSocket(client, 5, 2, NO_OWNER, others);
  assertEquals([entry.peer, entry.state, entry.id], [2, 1, 5]);
});

Deno.test("a datagram socket that others connect to is not described as connected", () => {
  const socket = seen({ type: SOCK.DGRAM });
  const entry = describeUnixSocket(socket, 5, 2, NO_OWNER, among(socket));
  assertEquals([entry.peer, entry.state], [0, STATE.CLOSE]);
});

Deno.test("the access of the file is that of the bound one, not of those it accepted", () => {
  const access = { mode: 0o700, uid: 1, gid: 2 };
  const file = {
    directory: "/a",
    deleted: true,
    otherNames: [],
    why: undefined,
    access,
  };
  const name = encoder.encode("n\0");
  const listener = seen({ ino: 2, state: STATE.LISTEN, name }, { file });
  const server = seen({ ino: 3, peer: 4, name }, { file });
  const client = seen({ ino: 4, peer: 3 });
  const others = among(listener, server, client);
  const describe = (one: SeenUnixSocket) =>
    describeUnixSocket(one, 5, 2, NO_OWNER, others);
  assertEquals(describe(listener).file_perms, access);
  assertEquals(describe(listener).deleted, true);
  assertEquals(describe(server).file_perms, undefined);
  assertEquals(describe(server).deleted, undefined);
  assertEquals(describe(server).name_dir, "/a");
});
