import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { close, O, open, stat, SyscallError } from "../ffi/syscall.ts";
import { cleanLinks, DumpLinks, LINKS_NAME } from "./links.ts";

/** A directory of images, and one with a file whose name is gone; "kept" is its other name. */
function withFile(
  test: (images: string, work: string, at: string, fd: number) => void,
): void {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-links-" });
  const [images, work] = [`${directory}/images`, `${directory}/work`];
  for (const path of [images, work]) Deno.mkdirSync(path);
  const fd = open(`${work}/file`, O.RDWR | O.CREAT, 0o600);
  try {
    Deno.linkSync(`${work}/file`, `${directory}/kept`);
    Deno.removeSync(`${work}/file`);
    test(images, work, `/proc/self/fd/${fd}`, fd);
  } finally {
    close(fd);
    Deno.removeSync(directory, { recursive: true });
  }
}

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test("links of a dump that fails are gone, and so is the list of them", () =>
  withFile((images, work, at, fd) => {
    {
      using links = new DumpLinks(images);
      assertEquals(
        links.add([{ at, path: `${work}/file`, status: stat(fd) }]),
        [`${work}/link_remap.1`],
      );
      assertEquals(names(work), ["link_remap.1"]);
      assertEquals(names(images), [LINKS_NAME]);
    }
    assertEquals(names(work), []);
    assertEquals(names(images), []);
  }));

Deno.test("links of a complete image stay until it is cleaned", () =>
  withFile((images, work, at, fd) => {
    {
      using links = new DumpLinks(images);
      links.add([`${work}/file`, `${work}/gone/too/file`].map((path) => ({
        at,
        path,
        status: stat(fd),
      })));
      links.commit();
    }
    assertEquals(names(work), ["link_remap.1", "link_remap.2"]);
    Deno.removeSync(`${work}/link_remap.1`);
    Deno.writeTextFileSync(`${work}/link_remap.1`, "of somebody else");
    assertEquals(cleanLinks(images), {
      removed: [`${work}/link_remap.2`],
      missing: [],
      replaced: [`${work}/link_remap.1`],
      last: [],
    });
    assertEquals(names(work), ["link_remap.1"]);
    assertEquals(names(images), []);
    assertEquals(cleanLinks(images), {
      removed: [],
      missing: [],
      replaced: [],
      last: [],
    });
  }));

Deno.test("links of an image that is replaced go when the new one is complete, not before", () =>
  withFile((images, work, at, fd) => {
    const dump = (complete: boolean) => {
      using links = new DumpLinks(images);
      links.add([{ at, path: `${work}/file`, status: stat(fd) }]);
      if (complete) links.commit();
    };
    dump(true);
    dump(false);
    assertEquals(names(work), ["link_remap.1"]);
    dump(true);
    assertEquals(names(work), ["link_remap.2"]);
    assertEquals(cleanLinks(images).removed, [`${work}/link_remap.2`]);
  }));

Deno.test("a link that a killed dump left is known", () =>
  withFile((images, work, at, fd) => {
    // Neither completed nor disposed of.
    const file = { at, path: `${work}/file`, status: stat(fd) };
    new DumpLinks(images).add([file]);
    assertEquals(cleanLinks(images).removed, [`${work}/link_remap.1`]);
    assertEquals(names(work), []);
  }));

Deno.test("a file without any name cannot be linked, and nothing is left of the attempt", () =>
  withFile((images, work, at, fd) => {
    Deno.removeSync(`${work}/../kept`);
    using links = new DumpLinks(images);
    const path = `${work}/file`;
    const [answer] = links.add([{ at, path, status: stat(fd) }]);
    assertInstanceOf(answer, SyscallError);
    assertEquals(names(images), []);
  }));

Deno.test("a damaged list is told, and nothing is removed by it", () =>
  withFile((images, work) => {
    Deno.writeTextFileSync(`${work}/link_remap.1`, "");
    for (
      const text of [
        "",
        "{}",
        "[1]",
        '[{"path":"x","dev":"1","ino":"2"}]',
        `[{"path":"${work}/link_remap.1","dev":"1"}]`,
        `[{"path":"${work}/link_remap.1","directory":"${work}"}]`,
        '[{"directory":"x"}]',
      ]
    ) {
      Deno.writeTextFileSync(`${images}/${LINKS_NAME}`, text);
      assertThrows(() => cleanLinks(images), CkptError, "does not list links");
    }
    assertEquals(names(work), ["link_remap.1"]);
  }));

Deno.test("a link is known again by its inode and birth, whatever the device number is by then", () =>
  withFile((images, work, at, fd) => {
    const file = { at, path: `${work}/file`, status: stat(fd) };
    new DumpLinks(images).add([file]);
    const list = `${images}/${LINKS_NAME}`;
    const [noted] = JSON.parse(Deno.readTextFileSync(list));
    if (noted.born === undefined) return; // this file system does not tell
    Deno.writeTextFileSync(
      list,
      JSON.stringify([{ ...noted, dev: "99999", born: "1" }]),
    );
    assertEquals(cleanLinks(images).replaced, [`${work}/link_remap.1`]);
    Deno.writeTextFileSync(list, JSON.stringify([{ ...noted, dev: "99999" }]));
    assertEquals(cleanLinks(images).removed, [`${work}/link_remap.1`]);
  }));
