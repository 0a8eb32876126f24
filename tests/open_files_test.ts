/**
 * The two ways to learn what a process has open, a BPF program and questions about each descriptor, tell the same, byte
 * for byte, of every kind that a program of ours holds, and of random graphs.
 */
import { assert, assertEquals } from "@std/assert";
import { FactTable } from "../lib/files/descriptor_facts.ts";
import { DescriptionIndex } from "../lib/files/description_index.ts";
import { OpenFileReader, readOpenFiles } from "../lib/files/open_files.ts";
import { openPidfd } from "../lib/ffi/pidfd.ts";
import { close, O } from "../lib/ffi/syscall.ts";
import { listDescriptors } from "../lib/proc/read.ts";
import { listTree } from "../lib/task/process_tree.ts";
import {
  assertUnchanged,
  compile,
  dump,
  type Program,
  restore,
  Scope,
} from "./harness.ts";
import { startIn } from "./mounts.ts";

/** Descriptors of all kinds, and what they are about. */
const PROGRAMS = [
  ...["aio", "fd_contents", "fd_epoll", "fd_eventfd", "fd_fanotify"],
  ...["fd_inotify", "fd_kinds", "fd_memfd", "fd_signalfd", "fd_timerfd"],
  ...["file_leases", "file_locks", "files_devices", "files_regular"],
  ...["ghost_regular", "ghost_special", "packet_rings", "pipes"],
  ...["ptys", "rings", "sk_corked", "sk_inet", "sk_ip", "sk_link"],
  ...["sk_names", "sk_rights", "sk_tcp", "sk_unaccepted", "sk_unix_gone"],
  ...["sk_unix_pairs", "tree_fifos", "tree_locks", "tree_owners"],
  ...["tree_pidfds", "tree_procfds", "tuns"],
].map((name) => [name]);
const REFUSED = [
  ...["holds", "tcp", "vsock", "fanotify-permission", "userfaultfd"],
  ...["mqueue", "perf", "landlock", "secret-memory", "bpf-program"],
  ...["bpf-link", "btf", "epoll-of-outside", "pidfd-of-outside"],
];
const RANDOM = [1, 2, 3, 4].map((seed) => [
  "random_descriptors",
  `${seed}`,
  "400",
]);

/** fdinfo tells how long it still takes. */
const TIMER = "anon_inode:[timerfd]";

function factsOf(table: FactTable, i: number) {
  const facts = table.get(i);
  const owner = table.hasOwner(i);
  return facts.link === TIMER
    ? { ...facts, owner, info: { ...facts.info, extra: [] } }
    : { ...facts, owner };
}

/** Looks at a process in both ways. @returns how many descriptors it has */
function compare(
  reader: OpenFileReader,
  tid: number,
  what: string,
  indices: readonly DescriptionIndex[],
): number {
  const pidfd = openPidfd(tid);
  try {
    const fds = listDescriptors(tid);
    const files = reader.read(tid, fds.length, true);
    assert(files !== undefined, `${what}: other numbers`);
    assertEquals(files.fds, fds);
    const read = FactTable.ask(tid, pidfd, fds, undefined, files);
    const asked = FactTable.ask(tid, pidfd, fds, read);
    for (let i = 0; i < fds.length; i++) {
      const expected = factsOf(asked, i);
      assertEquals(factsOf(read, i), expected, `${what}: ${expected.link}`);
      if (expected.link !== TIMER) assertEquals(asked.same(i), i, what);
    }
    const [byRead, byAsked] = indices;
    assertEquals(byRead.find(tid, read), byAsked.find(tid, asked), what);
    return fds.length;
  } finally {
    close(pidfd);
  }
}

/** Looks at all processes of a program. @returns how many descriptors they have */
function compareTree(
  reader: OpenFileReader,
  program: Program,
  name: string,
): number {
  const indices = [new DescriptionIndex(), new DescriptionIndex()];
  return listTree(program.pid).members.reduce(
    (count, { tid, zombie }) =>
      zombie ? count : count + compare(reader, tid, name, indices),
    0,
  );
}

for (const programs of [PROGRAMS, [REFUSED], RANDOM]) {
  const names = [...new Set(programs.map(([name]) => name))].join(", ");
  Deno.test(`what is read of descriptors is what the kernel answers: ${names}`, async () => {
    using reader = OpenFileReader.open()!;
    let count = 0;
    for (const [name, ...args] of programs) {
      await using scope = new Scope();
      const program = await scope.start(name, ...args);
      count += compareTree(reader, program, name);
    }
    assert(count > 5 * programs.length);
  });
}

Deno.test("what is read of descriptors is what the kernel answers: in namespaces of their own", async () => {
  using reader = OpenFileReader.open()!;
  for (const name of ["mounts_nested", "mounts_over_root", "mounts_detached"]) {
    await using scope = new Scope();
    assert(compareTree(reader, await startIn(scope, "", name), name) > 3);
  }
  for (
    const [command, ...options] of [
      // Ids are others inside.
      ["unshare", "--user", "--map-root-user"],
      ["unshare", "--pid", "--fork", "--kill-child"],
    ]
  ) {
    await using scope = new Scope();
    const work = scope.path("work");
    const program = await scope.startCommand(work, command, [
      ...options,
      await compile("fd_kinds"),
      work,
    ]);
    await program.ready();
    assert(compareTree(reader, program, options[0]) > 3);
  }
});

/** In struct seen_descriptor of c/lib/descriptors.c: known only of what was read, of a process that stands still. */
const FILE = 128;

Deno.test("fd_many: descriptors that are read survive a dump and a restore", async () => {
  await using scope = new Scope();
  const program = await scope.start("fd_many");
  const pidfd = openPidfd(program.pid);
  const isRead = (standsStill: boolean) => {
    const table = FactTable.askAll(
      program.pid,
      pidfd,
      undefined,
      standsStill,
    );
    return new DataView(table.records.buffer).getBigUint64(FILE, true) !== 0n;
  };
  // Whether they are is decided while the program runs.
  assertEquals([true, false, true].map(isRead), [false, false, true]);
  close(pidfd);
  const before = program.observe();
  const images = scope.path("images");
  await dump(scope, program, images);
  await restore(scope, program, images);
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});

Deno.test("what is read of descriptors is not used when the kernel answers otherwise", async () => {
  using reader = OpenFileReader.open()!;
  await using scope = new Scope();
  const { pid } = await scope.start("fd_many");
  const pidfd = openPidfd(pid);
  const fds = listDescriptors(pid);
  const files = reader.read(pid, fds.length, false)!;
  const asked = FactTable.ask(pid, pidfd, fds);
  // O_NONBLOCK among the flags of the first (struct open_file).
  files.records[117] ^= O.NONBLOCK >> 8;
  const read = FactTable.ask(pid, pidfd, fds, asked, files);
  assertEquals(fds.map((_, i) => read.same(i)), fds.map((_, i) => i));
  assertEquals(readOpenFiles(pid, false), undefined);
  close(pidfd);
});
