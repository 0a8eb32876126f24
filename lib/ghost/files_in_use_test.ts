import { assertEquals } from "@std/assert";
import { close, O, open, stat } from "../ffi/syscall.ts";
import { FilesInUse, type FileUse } from "./files_in_use.ts";

/** What is found of files whose paths were changed after they were opened. */
function withFiles(
  test: (directory: string, use: (name: string) => FileUse) => void,
): void {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-ghost-" });
  const fds: number[] = [];
  try {
    test(directory, (name) => {
      const fd = open(`${directory}/${name}`, O.RDWR | O.CREAT, 0o600);
      fds.push(fd);
      const at = `/proc/self/fd/${fd}`;
      return {
        at,
        holder: `descriptor ${fd}`,
        task: 1,
        writes: false,
        status: stat(fd),
        get link() {
          return Deno.readLinkSync(at);
        },
      };
    });
  } finally {
    for (const fd of fds) close(fd);
    Deno.removeSync(directory, { recursive: true });
  }
}

/** As a look at the file now would have it. */
function now(use: FileUse, writes = false): FileUse {
  const { at, holder, task, link } = use;
  return { at, holder, task, link, writes, status: stat(at) };
}

Deno.test("a file at its path needs no care, also with the kernel's mark in its name", () =>
  withFiles((_, use) => {
    const files = new FilesInUse();
    files.look(now(use("plain")));
    files.look(now(use("gone (deleted)")));
    assertEquals(files.lost, []);
  }));

Deno.test("a renamed file is at its new path", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    const file = use("a");
    Deno.renameSync(`${directory}/a`, `${directory}/b`);
    files.look(now(file));
    assertEquals(files.lost, []);
  }));

Deno.test("a file that another took the place of is never taken for it", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    const file = use("a");
    Deno.writeTextFileSync(`${directory}/new`, "");
    Deno.renameSync(`${directory}/new`, `${directory}/a`);
    files.look(now(file));
    const [found] = files.lost;
    assertEquals([found.mount, found.otherName, found.status.nlink], [
      "reached",
      undefined,
      0n,
    ]);
  }));

Deno.test("another name is found: of a file in use, in the same directory, elsewhere by the kernel", () => {
  for (const name of ["other", "below/other"]) {
    withFiles((directory, use) => {
      const files = new FilesInUse();
      const file = use("a");
      Deno.mkdirSync(`${directory}/below`);
      Deno.linkSync(`${directory}/a`, `${directory}/${name}`);
      Deno.removeSync(`${directory}/a`);
      files.look(now(file));
      assertEquals(files.lost.map(({ otherName }) => otherName), [
        `${directory}/${name}`,
      ]);
    });
  }
});

Deno.test("a file that got its name back is there, although the kernel marks it as deleted", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    const file = use("a");
    Deno.linkSync(`${directory}/a`, `${directory}/b`);
    Deno.removeSync(`${directory}/a`);
    Deno.renameSync(`${directory}/b`, `${directory}/a`);
    files.look(now(file));
    assertEquals(files.lost.map(({ link, otherName }) => [link, otherName]), [
      [`${directory}/a (deleted)`, `${directory}/a`],
    ]);
  }));

Deno.test("names that a dump made are no names", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    const file = use("a");
    Deno.linkSync(`${directory}/a`, `${directory}/link_remap.1`);
    Deno.removeSync(`${directory}/a`);
    files.look(now(file));
    assertEquals(files.lost.map(({ otherName }) => otherName), [undefined]);
  }));

Deno.test("a file is told once, with its first holder, and written if by any", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    const file = use("a");
    Deno.removeSync(`${directory}/a`);
    files.look(now(file));
    files.look({ ...now(file, true), holder: "another" });
    assertEquals(
      files.lost.map(({ holder, written }) => [holder, written]),
      [[file.holder, true]],
    );
  }));

Deno.test("a file in directories that are gone is reached by the nearest one", () =>
  withFiles((directory, use) => {
    const files = new FilesInUse();
    Deno.mkdirSync(`${directory}/one/two`, { recursive: true });
    const file = use("one/two/a");
    Deno.removeSync(`${directory}/one`, { recursive: true });
    files.look(now(file));
    assertEquals(files.lost.map(({ link, mount }) => [link, mount]), [
      [`${directory}/one/two/a (deleted)`, "reached"],
    ]);
  }));

Deno.test("a file of a mount that no path leads to is told to be gone", () => {
  const files = new FilesInUse();
  const at = "/proc/self/ns/mnt";
  files.look({
    link: Deno.readLinkSync(at),
    at,
    holder: "a namespace",
    task: 1,
    writes: false,
    status: stat(at),
  });
  assertEquals(files.lost.map(({ mount }) => mount), ["gone"]);
});
