import { assertEquals } from "@std/assert";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { statx } from "../ghost/calls.ts";
import { readMountInfo } from "../proc/read.ts";
import { mountOf } from "./mount.ts";
import { findPlace, OverlayReader, type Place } from "./overlay_layers.ts";

/** Overlays of every sort, in a mount namespace that ends with its shell. */
const SCRIPT = `
set -e
mount -t tmpfs layers /mnt && cd /mnt
mkdir -p l1/a l2/b "l 3:x,y" up work merged empty data old hidden
touch l1/file data/blob
mount -t overlay plain -o lowerdir=/mnt/l1,upperdir=/mnt/up,workdir=/mnt/work merged
mkdir m2 m3 m4 m5 up2 work2
mount -t overlay relative -o lowerdir=l1:l2:empty,upperdir=up2,workdir=work2 m2
mount -t overlay lower-only -o 'lowerdir=l2:l 3\\:x\\,y' m3
mount -t overlay renamed -o lowerdir=old:l1 m4
mv old renamed
mount -t tmpfs other hidden && mkdir hidden/lower
mount -t overlay unmounted -o lowerdir=hidden/lower:l1 m5
umount -l hidden
echo ready
read
`;

interface Child {
  readonly pid: number;
  end(): Promise<void>;
}

async function start(): Promise<Child> {
  const child = new Deno.Command("unshare", {
    args: ["--mount", "bash", "-c", SCRIPT],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  assertEquals(new TextDecoder().decode(value), "ready\n");
  return {
    pid: child.pid,
    async end() {
      await child.stdin.close();
      await reader.cancel();
      await child.status;
    },
  };
}

function canRead(): boolean {
  try {
    using _reader = new OverlayReader();
    return true;
  } catch (error) {
    if (error instanceof SyscallError || error instanceof Error) return false;
    throw error;
  }
}

Deno.test({
  name: "the layers of an overlay are found, whatever its options say",
  ignore: Deno.uid() !== 0 || !canRead(),
  async fn() {
    const child = await start();
    try {
      using reader = new OverlayReader();
      const root = `/proc/${child.pid}/root`;
      const mounts = readMountInfo(child.pid).map((info) => mountOf(info, 1));
      const at = (path: string) => {
        try {
          const { inode, mountId } = statx(root + path);
          return { inode, mount: Number(mountId) };
        } catch (error) {
          if (error instanceof SyscallError) return undefined;
          throw error;
        }
      };
      const path = (place: Place | undefined) =>
        place &&
        (findPlace(place, mounts, at)?.path ?? `not found: ${place.path}`);
      const layers = (point: string) => {
        const fd = open(`${root}${point}`, O.RDONLY | O.DIRECTORY);
        try {
          const { upper, work, lower, data } = reader.read(fd);
          return [path(upper), path(work), lower.map(path), data.map(path)];
        } finally {
          close(fd);
        }
      };
      assertEquals(layers("/mnt/merged"), [
        "/mnt/up",
        "/mnt/work",
        ["/mnt/l1"],
        [],
      ]);
      assertEquals(layers("/mnt/m2"), [
        "/mnt/up2",
        "/mnt/work2",
        ["/mnt/l1", "/mnt/l2", "/mnt/empty"],
        [],
      ]);
      assertEquals(layers("/mnt/m3"), [
        undefined,
        undefined,
        ["/mnt/l2", "/mnt/l 3:x,y"],
        [],
      ]);
      assertEquals(layers("/mnt/m4"), [
        undefined,
        undefined,
        ["/mnt/renamed", "/mnt/l1"],
        [],
      ]);
      assertEquals(layers("/mnt/m5"), [
        undefined,
        undefined,
        ["not found: /lower", "/mnt/l1"],
        [],
      ]);
    } finally {
      await child.end();
    }
  },
});
