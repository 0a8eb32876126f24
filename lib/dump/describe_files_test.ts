import { assert, assertEquals } from "@std/assert";
import { O } from "../ffi/syscall.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import {
  fd_types,
  type file_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";
import { pipesAmong, TreeDescriptions } from "../files/descriptors.ts";
import { FileTable } from "../files/file_table.ts";
import { OutsideHolders } from "../files/outside_holders.ts";
import { type DescribedFiles, describeFiles } from "./describe_files.ts";
import { judge, lookAtProcess, type Survey } from "./survey.ts";

async function described(
  script: string,
  external: string[] | ((answer: unknown) => string[]) = [],
): Promise<{ files: Described; survey: Survey; answer: unknown }> {
  await using child = await ChildProgram.start(script);
  const seen = lookAtProcess(child.pid);
  const pids = new Set([child.pid]);
  const holders = new OutsideHolders(pipesAmong([seen]), pids);
  const survey = judge(
    seen,
    {
      root: child.pid,
      shellJob: false,
      external: typeof external === "function"
        ? external(child.answer)
        : external,
    },
    new TreeDescriptions(pids, holders),
  );
  assertEquals(survey.reasons, []);
  const table = new FileTable();
  return {
    files: { table, ...describeFiles(survey, table) },
    survey,
    answer: child.answer,
  };
}

interface Described extends DescribedFiles {
  table: FileTable;
}

function entry(files: Described, id: number): file_entry {
  return files.table.entries.find((file) => file.id === id)!;
}

Deno.test("every file has one entry, with an id of its own", async () => {
  const path = await Deno.makeTempFile();
  try {
    const { files, survey } = await described(`
fd = os.open(${JSON.stringify(path)}, os.O_RDWR)
os.write(fd, b"1234567")
os.lseek(fd, 3, 0)
os.dup2(fd, 8, True)
os.open(${JSON.stringify(path)}, os.O_WRONLY | os.O_APPEND)
area = mmap.mmap(fd, 7)
os.umask(0o27)
ready()
`);
    const ids = files.table.entries.map(({ id }) => id);
    assertEquals(new Set(ids).size, ids.length);
    for (const file of files.table.entries) {
      assertEquals(file.reg?.id, file.id);
    }
    const { descriptors } = files;
    const of = (fd: number) =>
      descriptors.find((descriptor) => descriptor.fd === fd)!;
    assertEquals(descriptors.map(({ fd }) => fd), [0, 1, 2, 3, 4, 5, 8]);
    assertEquals(of(8).id, of(3).id);
    assertEquals(new Set([0, 3, 4].map((fd) => of(fd).id)).size, 3);
    assertEquals([of(3).flags, of(8).flags], [1, 0]);
    const { reg } = entry(files, of(3).id);
    assertEquals([reg!.name, reg!.pos, reg!.size], [path, 3n, 7n]);
    // What is only appended to may grow: its size is not compared.
    const appended = entry(files, of(4).id).reg!;
    assertEquals(appended.flags & (O.APPEND | O.ACCMODE), O.APPEND | O.WRONLY);
    assertEquals(appended.size, undefined);
    // mmap of Python makes a duplicate of the descriptor.
    assertEquals(of(5).id, of(3).id);

    assertEquals(entry(files, files.exeId).reg!.name, survey.exe.path);
    assertEquals(entry(files, files.fs.cwd_id).reg!.name, "/");
    assertEquals(files.fs, {
      cwd_id: files.fs.root_id,
      root_id: files.fs.root_id,
      umask: 0o27,
    });
    for (const { entry: vma, path } of survey.vmas.vmas) {
      if (path === undefined) continue;
      const mapped = entry(files, Number(vma.shmid)).reg!;
      assertEquals(mapped.name, path);
      assertEquals(mapped.flags, vma.fdflags);
      assert(mapped.size !== undefined && mapped.size > 0n);
      assert(
        descriptors.every(({ id }) => id !== Number(vma.shmid)),
        "a mapping shares the entry of a descriptor",
      );
    }
    const areas = survey.vmas.vmas.filter((vma) => vma.path === path);
    assertEquals(areas.map(({ entry }) => entry.fdflags), [2]);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a pipe of the outside is described by its number", async () => {
  const { files, answer } = await described(
    `
a, b = os.pipe()
os.close(a)
os.dup2(b, 9)
ready(os.fstat(b).st_ino)
`,
    (inode) => [`pipe:[${inode}]`],
  );
  const own = files.descriptors.filter(({ type }) => type === fd_types.PIPE);
  assertEquals(own.map(({ fd }) => fd), [4, 9]);
  assertEquals(own[0].id, own[1].id);
  const { type, pipe } = entry(files, own[0].id);
  assertEquals([type, pipe!.pipe_id, pipe!.id], [
    fd_types.PIPE,
    answer,
    own[0].id,
  ]);
  assertEquals(pipe!.flags & O.ACCMODE, O.WRONLY);
});

Deno.test("an external file is described by its key, not by a path", async () => {
  const path = await Deno.makeTempFile();
  const { files } = await described(
    `
a = os.open(${JSON.stringify(path)}, os.O_RDWR)
os.unlink(${JSON.stringify(path)})
info = open("/proc/self/fdinfo/%d" % a).read().splitlines()
mount = [line.split()[1] for line in info if line.startswith("mnt_id")]
ready("file[%x:%d]" % (int(mount[0]), os.fstat(a).st_ino))
`,
    (key) => [key as string],
  );
  const { id } = files.descriptors.find(({ fd }) => fd === 3)!;
  const { reg } = entry(files, id);
  assertEquals(reg!.ext, true);
  assert(/^file\[[0-9a-f]+:\d+\]$/.test(reg!.name), reg!.name);
  assertEquals([reg!.size, reg!.mode], [undefined, undefined]);
});

Deno.test("a terminal is described once, as the pty it is", async () => {
  await using holder = await ChildProgram.start(`
import pty
master, slave = pty.openpty()
ready([os.getpid(), slave, os.ttyname(slave), os.fstat(slave).st_rdev, os.fstat(slave).st_dev])
`);
  const [, , name, rdev, dev] = holder.answer as [
    number,
    number,
    string,
    number,
    number,
  ];
  const { files, survey } = await described(
    `
a = os.open(${JSON.stringify(name)}, os.O_RDWR | os.O_NOCTTY)
b = os.open(${JSON.stringify(name)}, os.O_RDONLY | os.O_NOCTTY)
ready()
`,
    [`tty[${rdev.toString(16)}:${dev.toString(16)}]`],
  );
  const own = files.descriptors.filter(({ type }) => type === fd_types.TTY);
  assertEquals(own.map(({ fd }) => fd), [3, 4]);
  const index = Number(/\d+$/.exec(name)![0]);
  const expected: tty_info_entry = {
    id: index * 2,
    type: TtyType.PTY,
    locked: false,
    exclusive: false,
    packet_mode: false,
    sid: survey.stat.session,
    pgrp: survey.stat.pgrp,
    rdev,
    dev,
    pty: { index },
  };
  assertEquals(files.terminals, [expected]);
  for (const { id } of own) {
    const { tty } = entry(files, id);
    assertEquals([tty!.id, tty!.tty_info_id], [id, expected.id]);
    assertEquals(entry(files, tty!.regf_id!).reg!.name, name);
  }
});

Deno.test("a fifo is described with its path, a pidfd with its process", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const { files, answer } = await described(`
path = ${JSON.stringify(directory)} + "/fifo"
os.mkfifo(path)
both = os.open(path, os.O_RDWR)
reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
own = os.pidfd_open(os.getpid())
ready([both, reading, own, os.getpid(), os.fstat(own).st_ino])
`);
    const [both, reading, own, pid, ino] = answer as number[];
    const of = (fd: number) =>
      entry(files, files.descriptors.find((one) => one.fd === fd)!.id);
    const fifos = [of(both), of(reading)];
    assertEquals(fifos.map(({ type }) => type), [fd_types.FIFO, fd_types.FIFO]);
    assertEquals(fifos[0].fifo!.pipe_id, fifos[1].fifo!.pipe_id);
    const paths = fifos.map(({ fifo }) => entry(files, fifo!.regf_id!).reg!);
    assertEquals(paths.map(({ name, flags }) => [name, flags & ~O.LARGEFILE]), [
      [`${directory}/fifo`, O.RDWR],
      [`${directory}/fifo`, O.NONBLOCK],
    ]);
    const { type, pidfd } = of(own);
    assertEquals([type, pidfd!.nspid, pidfd!.ino], [fd_types.PIDFD, pid, ino]);
    assertEquals(pidfd!.flags, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
