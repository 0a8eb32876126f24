import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import {
  type DecodedProgram,
  decodeProgram,
  textAt,
} from "../ffi/testing/decoded_program.ts";
import { O } from "../ffi/syscall.ts";
import {
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type fown_entry,
} from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import { listDescriptors, readFdInfo } from "../proc/read.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { FD_CLOEXEC } from "./descriptors.ts";
import { NO_OWNER } from "./file_table.ts";
import {
  type GivenDescriptor,
  restoreDescriptors,
  restoreDirectories,
} from "./restore_descriptors.ts";

/** An open file description of the model. */
interface ModelFile {
  path: string;
  flags: number;
  pos: bigint;
  signal: bigint;
  /** Type and id, as F_SETOWN_EX has them. */
  owner: readonly [number, number];
  /** Real and effective user id of who set it. */
  ownerIds: readonly [number, number];
}

interface ModelDescriptor {
  file: ModelFile;
  closeOnExec: boolean;
}

/** Executes the calls as the kernel would (open(2), dup(2), fcntl(2)). */
function execute(
  program: DecodedProgram,
  table: Map<number, ModelDescriptor>,
): void {
  const get = (fd: bigint) => {
    const found = table.get(Number(fd));
    assert(found !== undefined, `descriptor ${fd} is not open`);
    return found;
  };
  let ids: readonly [number, number] = [0, 0];
  for (const { name, args, purpose } of program.operations) {
    const [a, b, c] = args.map(({ value }) => value);
    switch (name) {
      case "openat": {
        const path = textAt(program, b);
        const link = /^\/proc\/self\/fd\/(\d+)$/.exec(path);
        let fd = 0;
        while (table.has(fd)) fd++;
        table.set(fd, {
          file: {
            path: link === null ? path : get(BigInt(link[1])).file.path,
            // O_ASYNC does nothing in open(2).
            flags: Number(c) & ~(O.CLOEXEC | O.NOCTTY | O.ASYNC),
            pos: 0n,
            signal: 0n,
            owner: [0, 0],
            ownerIds: [0, 0],
          },
          closeOnExec: (Number(c) & O.CLOEXEC) !== 0,
        });
        break;
      }
      case "dup3":
        assert(a !== b, `dup3 of ${a} to itself fails: ${purpose}`);
        assert(!table.has(Number(b)), `descriptor ${b} is replaced`);
        table.set(Number(b), {
          file: get(a).file,
          closeOnExec: c === BigInt(O.CLOEXEC),
        });
        break;
      case "close":
        get(a);
        table.delete(Number(a));
        break;
      case "lseek":
        assertEquals(c, 0n);
        get(a).file.pos = b;
        break;
      case "setresuid":
        ids = [Number(a), Number(b)];
        assertEquals(c, 0n);
        break;
      case "fcntl": {
        const { file } = get(a);
        if (b === 4n) {
          // Of these, F_SETFL changes only the following.
          const settable = O.APPEND | O.ASYNC | O.DIRECT | O.NOATIME |
            O.NONBLOCK;
          file.flags = file.flags & ~settable | Number(c) & settable;
        } else if (b === 10n) {
          file.signal = c;
        } else {
          assertEquals(b, 15n);
          const at = Number(c);
          file.owner = [
            program.data.getInt32(at, true),
            program.data.getInt32(at + 4, true),
          ];
          file.ownerIds = ids;
        }
        break;
      }
      default:
        throw new Error(`${name} is not part of restoring descriptors`);
    }
  }
  assertEquals(ids, [0, 0], "root's ids are not given back");
}

function named(id: number, path: string, rest: {
  flags?: number;
  pos?: bigint;
  fown?: fown_entry;
} = {}): file_entry {
  return {
    type: fd_types.REG,
    id,
    reg: {
      id,
      flags: 0,
      pos: 0n,
      fown: NO_OWNER,
      name: path,
      build_id: [],
      ...rest,
    },
  };
}

Deno.test("of random tables, exactly the wanted descriptors are open", () => {
  const random = seededRandom(23);
  const below = (n: number) => Math.floor(random() * n);
  const chance = (p: number) => random() < p;
  for (let round = 0; round < 500; round++) {
    const files = new Map<number, file_entry>();
    const given = new Map<number, GivenDescriptor>();
    const table = new Map<number, ModelDescriptor>();
    const wanted = new Map<number, ModelFile>();
    const count = 1 + below(12);
    for (let id = 1; id <= count; id++) {
      const flags = [O.RDONLY, O.WRONLY, O.RDWR][below(3)] |
        (chance(0.2) ? O.APPEND : 0) | (chance(0.2) ? O.NONBLOCK : 0) |
        (chance(0.2) ? O.ASYNC : 0) | (chance(0.1) ? O.PATH : 0);
      const pos = chance(0.5) ? 0n : BigInt(below(2 ** 40));
      const fown = chance(0.6) ? NO_OWNER : {
        uid: chance(0.5) ? 0 : below(9),
        euid: chance(0.5) ? 0 : below(9),
        signum: chance(0.5) ? 0 : 1 + below(64),
        pid_type: below(3),
        pid: 1 + below(1000),
      };
      const isPath = (flags & O.PATH) !== 0;
      let file: ModelFile = {
        path: `/srv/${id}`,
        flags,
        pos: isPath ? 0n : pos,
        signal: isPath ? 0n : BigInt(fown.signum),
        owner: isPath ? [0, 0] : [fown.pid_type, fown.pid],
        ownerIds: isPath ? [0, 0] : [fown.uid, fown.euid],
      };
      if (isPath) file.flags &= ~O.ASYNC;
      files.set(id, named(id, file.path, { flags: file.flags, pos, fown }));
      if (chance(0.2)) {
        const fd = 100 + id;
        const own: ModelFile = {
          path: `/dev/given${id}`,
          flags: O.RDWR,
          pos: 5n,
          signal: 1n,
          owner: [1, 1],
          ownerIds: [0, 0],
        };
        const reopen = chance(0.5);
        given.set(id, { fd, reopen });
        table.set(fd, { file: own, closeOnExec: true });
        file = reopen ? { ...file, path: own.path } : own;
      }
      wanted.set(id, file);
    }
    const fds = Array.from({ length: 60 }, (_, fd) => fd)
      .filter(() => chance(round % 2 === 0 ? 0.2 : 0.8));
    const descriptors = fds.map((fd): fdinfo_entry => ({
      id: 1 + below(count),
      flags: chance(0.4) ? FD_CLOEXEC : 0,
      type: fd_types.REG,
      fd,
    })).sort(() => random() - 0.5);

    const program = new Program();
    restoreDescriptors(program, descriptors, files, given);
    const services = [...table.keys()];
    execute(decodeProgram(program), table);
    for (const fd of services) {
      assert(table.delete(fd), `given descriptor ${fd} was closed`);
    }
    assertEquals(
      [...table.keys()].sort((a, b) => a - b),
      fds,
    );
    const descriptions = new Map<number, ModelFile>();
    for (const { fd, id, flags } of descriptors) {
      const { file, closeOnExec } = table.get(fd)!;
      assertEquals(closeOnExec, flags === FD_CLOEXEC);
      assertEquals(file, wanted.get(id)!);
      const known = descriptions.get(id) ?? file;
      assert(known === file, `${fd} has a description of its own`);
      descriptions.set(id, file);
    }
    assertEquals(
      new Set(descriptions.values()).size,
      descriptions.size,
      "files of their own share a description",
    );
  }
});

Deno.test("a terminal is opened anew with the flags of the image", () => {
  const tty = { id: 3, tty_info_id: 2, flags: O.WRONLY, fown: NO_OWNER };
  const files = new Map<number, file_entry>([
    [3, { type: fd_types.TTY, id: 3, tty: { ...tty, regf_id: 1 } }],
  ]);
  const terminal = {
    path: "/dev/pts/1",
    flags: O.RDWR,
    pos: 0n,
    signal: 0n,
    owner: [0, 0],
    ownerIds: [0, 0],
  } as const;
  const table = new Map<number, ModelDescriptor>([
    [50, { file: terminal, closeOnExec: true }],
  ]);
  const program = new Program();
  restoreDescriptors(
    program,
    [{ id: 3, flags: 0, type: fd_types.TTY, fd: 2 }],
    files,
    new Map([[3, { fd: 50, reopen: true }]]),
  );
  const decoded = decodeProgram(program);
  const [open] = decoded.operations;
  assert(
    (Number(open.args[2].value) & O.NOCTTY) !== 0,
    "it may become the controlling terminal",
  );
  execute(decoded, table);
  assertEquals([...table.keys()], [50, 2]);
  assertEquals(table.get(2)!.file, { ...terminal, flags: O.WRONLY });
});

Deno.test("a real task has exactly the wanted descriptors", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const random = seededRandom(41);
    const files = new Map<number, file_entry>();
    const flags = [
      O.RDONLY,
      O.WRONLY | O.APPEND,
      O.RDWR | O.NONBLOCK,
      O.RDWR | O.ASYNC,
      O.PATH,
      O.RDONLY | O.DIRECTORY,
      // Flags that act on open(2) only: they may not act again.
      O.RDWR | O.CREAT | O.EXCL | O.TRUNC,
    ];
    flags.forEach((flags, i) => {
      const path = `${directory}/é ${i}`;
      if (flags & O.DIRECTORY) Deno.mkdirSync(path);
      else Deno.writeTextFileSync(path, "content");
      files.set(
        i + 1,
        named(i + 1, path, {
          flags,
          pos: flags & O.DIRECTORY ? 0n : BigInt(i * 1000),
        }),
      );
    });
    for (let round = 0; round < 8; round++) {
      const fds = Array.from({ length: 40 }, (_, fd) => fd)
        .filter(() => random() < 0.4);
      const descriptors = fds.map((fd): fdinfo_entry => ({
        id: 1 + Math.floor(random() * flags.length),
        flags: random() < 0.5 ? FD_CLOEXEC : 0,
        type: fd_types.REG,
        fd,
      }));
      using task = new AgentTask();
      const program = new Program();
      program.call("close", [0], "closing the lifeline");
      restoreDescriptors(program, descriptors, files, new Map());
      task.run(program);
      assertEquals([...listDescriptors(task.pid)].sort((a, b) => a - b), fds);
      for (const { fd, id, flags } of descriptors) {
        const { reg } = files.get(id)!;
        const path = Deno.readLinkSync(`/proc/${task.pid}/fd/${fd}`);
        assertEquals(path, reg!.name);
        const info = readFdInfo(task.pid, fd);
        const acting = O.CREAT | O.EXCL | O.TRUNC;
        assertEquals(
          info.flags & ~O.LARGEFILE,
          (reg!.flags & ~acting) | (flags === FD_CLOEXEC ? O.CLOEXEC : 0),
        );
        assertEquals(info.pos, (reg!.flags & O.PATH) === 0 ? reg!.pos : 0n);
      }
    }
    assertEquals(Deno.readTextFileSync(`${directory}/é 6`), "content");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a task gets its working directory, and its root directory", () => {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${directory}/root/inside`, { recursive: true });
    const file = (path: string) => named(1, path).reg!;
    for (const root of ["/", `${directory}/root`]) {
      for (const cwd of [`${directory}/root/inside`, directory, "/"]) {
        using task = new AgentTask();
        const before = [...listDescriptors(task.pid)];
        const program = new Program();
        restoreDirectories(program, file(cwd), file(root));
        task.run(program);
        assertEquals(Deno.readLinkSync(`/proc/${task.pid}/cwd`), cwd);
        assertEquals(Deno.readLinkSync(`/proc/${task.pid}/root`), root);
        assertEquals([...listDescriptors(task.pid)], before);
      }
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
