import { assertEquals } from "@std/assert";
import { readImageSet } from "../image/image_set.ts";
import type { mnt_entry } from "../image/schema.gen.ts";
import { minimalImage, writeTree } from "../image/testing/minimal_image.ts";
import { showMounts } from "./show_mounts.ts";

const NAMESPACE = 20;

function mount(
  mnt_id: number,
  parent_mnt_id: number,
  mountpoint: string,
  more: Partial<mnt_entry> = {},
): mnt_entry {
  return {
    fstype: 5,
    mnt_id,
    root_dev: 40,
    parent_mnt_id,
    flags: 0,
    root: "/",
    mountpoint,
    source: "",
    options: "",
    ...more,
  };
}

function shown(mounts: mnt_entry[] | undefined): string {
  const image = minimalImage();
  if (mounts !== undefined) image.ids.mnt_ns_id = NAMESPACE;
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeTree(
      directory,
      [image],
      mounts === undefined ? [] : [
        ["mountpoints", NAMESPACE, mounts.toReversed()],
        ["ckpt-mounts", NAMESPACE, [{
          mnt_id: 10,
          host_path: "/c",
          layers: [],
        }]],
      ],
    );
    return showMounts(readImageSet(directory));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("mounts are drawn as trees, and who shares with whom", () => {
  assertEquals(
    shown([
      mount(10, 5, "/", { fstype: 0, root: "/c", root_dev: 0x800001 }),
      mount(11, 10, "/a", { shared_id: 7, flags: 5 }),
      mount(12, 10, "/b", { master_id: 7, root: "/x" }),
      mount(13, 11, "/a", { ext_key: "data", master_id: 3 }),
    ]),
    `\
mount namespace 20: tasks 4242
  10 /  unknown none  8:1 /c  (from /c)
    11 /a  tmpfs none  0:40 /  ro nodev shared:7  covered
      13 /a  tmpfs none  0:40 /  master:3 (external mnt[data])
    12 /b  tmpfs none  0:40 /x  master:7

peer groups, with their slaves below them
  group 7: 11 /a in 20
    slaves: 12 /b in 20
  slaves (slave of group 3 outside): 13 /a in 20
`,
  );
  assertEquals(
    shown(undefined),
    "the image has no mount namespaces of its own\n",
  );
});
