import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { mark_type } from "../image/schema.gen.ts";
import {
  confirmMarks,
  dumpFanotify,
  fanotifyProblem,
  fanotifyRefusal,
  parseFanotify,
} from "./fanotify.ts";
import { NO_OWNER } from "./file_table.ts";

const HEAD = "fanotify flags:c03 event-flags:8002";
const INODE = "fanotify ino:11 sdev:2c mflags:40 mask:40000020 " +
  "ignored_mask:18 fhandle-bytes:4 fhandle-type:1 f_handle:01020304";
const MOUNT = "fanotify mnt_id:57 mflags:0 mask:20 ignored_mask:0";
const FILE_SYSTEM = "fanotify sdev:29 mflags:200 mask:8 ignored_mask:0";
const NAMESPACE = "fanotify mnt_ns:4026531841 mflags:0 mask:1000000 " +
  "ignored_mask:0";

Deno.test("a group tells how it was made, and of its marks the first first", () => {
  const group = parseFanotify([HEAD, FILE_SYSTEM, MOUNT, INODE]);
  assertEquals(group.initFlags, 0xc03);
  assertEquals(group.eventFlags, 0x8002);
  assertEquals(group.marks, [
    {
      flags: 0x40,
      mask: 0x40000020,
      ignored: 0x18,
      on: {
        kind: "inode",
        inode: {
          inode: 0x11n,
          device: 0x2c,
          handle: { type: 1, bytes: Uint8Array.of(1, 2, 3, 4) },
        },
      },
    },
    { flags: 0, mask: 0x20, ignored: 0, on: { kind: "mount", mountId: 0x57 } },
    {
      flags: 0x200,
      mask: 8,
      ignored: 0,
      on: { kind: "filesystem", device: 0x29 },
    },
  ]);
  assertThrows(() => parseFanotify([MOUNT]), CkptError);
  assertThrows(() => parseFanotify([HEAD, "fanotify x:1"]), CkptError);
});

Deno.test("what decides on others, or watches namespaces, is refused", () => {
  const why = (...lines: string[]) =>
    fanotifyRefusal(parseFanotify([HEAD, ...lines]));
  assertEquals(why(INODE, MOUNT, FILE_SYSTEM), undefined);
  assertEquals(
    why(NAMESPACE),
    "it watches a mount namespace, which is not supported",
  );
  for (const bit of ["10000", "20000", "40000", "100000"]) {
    assertEquals(
      why(MOUNT.replace("mask:20", `mask:${bit}`))?.slice(0, 13),
      "it decides on",
    );
  }
});

Deno.test("marks on file systems are not part of CRIU's entry, and keep their place", () => {
  const group = parseFanotify([HEAD, INODE, FILE_SYSTEM, MOUNT, FILE_SYSTEM]);
  const paths = ["/fs", "/m", "/fs2", "/file"];
  const { entry, filesystems, indices } = dumpFanotify(
    4,
    group,
    paths,
    2,
    NO_OWNER,
  );
  assertEquals(entry.mark.map(({ type }) => type), [
    mark_type.MOUNT,
    mark_type.INODE,
  ]);
  assertEquals(entry.mark[0].me, { mnt_id: 0x57, path: "/m" });
  assertEquals(entry.mark[1].ie?.f_handle.path, "/file");
  assertEquals(filesystems.map(({ index, path }) => [index, path]), [
    [0, "/fs"],
    [2, "/fs2"],
  ]);
  assertEquals(indices, [1, 3]);
  assertEquals(fanotifyProblem(entry), undefined);
  entry.mark[0].mask = 0x10000;
  assertEquals(typeof fanotifyProblem(entry), "string");
});

Deno.test("marks that the kernel made otherwise are told", () => {
  const wanted = {
    mflags: 0,
    mask: 0x20,
    ignored_mask: 0,
    on: "mount",
  } as const;
  confirmMarks([HEAD, MOUNT], [wanted]);
  for (const wrong of [{ mask: 0x21 }, { ignored_mask: 1 }, { mflags: 0x40 }]) {
    assertThrows(
      () => confirmMarks([HEAD, MOUNT], [{ ...wanted, ...wrong }]),
      CkptError,
      "mark 0: the kernel made a mark with the mask 0x20",
    );
  }
  assertThrows(() => confirmMarks([HEAD], [wanted]), CkptError);
});
