import { assertEquals } from "@std/assert";
import type { FileStatus } from "../ffi/syscall.ts";
import { type FileSystem, freezeReasons } from "./file_systems.ts";

const STATUS: FileStatus = {
  dev: 1n,
  ino: 2n,
  mode: 0o100644,
  nlink: 1n,
  uid: 0,
  gid: 0,
  rdev: 0n,
  size: 1n,
  allocated: 0n,
};

function fileSystem(change: Partial<FileSystem>): FileSystem {
  return {
    device: "8:1",
    type: "ext4",
    mountPoint: "/data",
    at: "/data",
    files: [{
      path: "/data/file",
      at: "/data/file",
      status: STATUS,
      executed: false,
      content: true,
      written: true,
    }],
    ...change,
  };
}

function own(device: string | undefined) {
  return [{ what: "the images directory", path: "/images", device }];
}

function whys(
  fileSystems: readonly FileSystem[],
  places = own(undefined),
): string[] {
  return freezeReasons(fileSystems, "8:2", places).map(({ why }) => why);
}

Deno.test("a file system is frozen that the kernel can freeze and ckpt does not need", () => {
  for (const type of ["ext4", "xfs", "btrfs"]) {
    assertEquals(whys([fileSystem({ type })]), []);
    assertEquals(whys([fileSystem({ type })], own("8:3")), []);
  }
});

Deno.test("any other is refused, with the reason", () => {
  assertEquals(whys([fileSystem({}), fileSystem({ device: "8:2" })]), [
    "it is the root file system, which ckpt and all others need",
  ]);
  assertEquals(whys([fileSystem({ type: "tmpfs" })]), [
    "tmpfs cannot be frozen",
  ]);
  assertEquals(whys([fileSystem({})], own("8:1")), [
    "the images directory (/images) is on it, and ckpt would wait for itself",
  ]);
  assertEquals(whys([]), ["the program has no file open for writing"]);
});
