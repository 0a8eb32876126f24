import { assertEquals } from "@std/assert";
import type { ckpt_mount_entry, mnt_entry } from "../schema.gen.ts";
import { minimalImage, writeTree } from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

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
    source: "none",
    options: "",
    ...more,
  };
}

/** What is wrong with an image of a process in a namespace of such mounts. */
function wrong(
  mounts: mnt_entry[],
  extensions: ckpt_mount_entry[] = [],
): string[] {
  const image = minimalImage();
  image.ids.mnt_ns_id = NAMESPACE;
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeTree(directory, [image], [
      ["mountpoints", NAMESPACE, mounts],
      ["ckpt-mounts", NAMESPACE, extensions],
    ]);
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const ROOT = mount(10, 5, "/");

Deno.test("a tree of mounts is one, whatever their order", () => {
  assertEquals(
    wrong([
      mount(12, 11, "/a/b", { shared_id: 7, master_id: 3 }),
      mount(11, 10, "/a"),
      ROOT,
    ], [{ mnt_id: 12, host_path: "/x", layers: [] }]),
    [],
  );
});

Deno.test("what no mount namespace can be is told", () => {
  const cases: [mnt_entry[], string][] = [
    [[], "mountpoints-20.img: holds no mount at /"],
    [
      [ROOT, mount(11, 9, "/a")],
      "entry 1, field parent_mnt_id: there is no mount 9",
    ],
    [[ROOT, mount(11, 4, "/")], "entry 1: is a second root"],
    [[ROOT, mount(10, 10, "/a")], "entry 1, field mnt_id: 10 is there twice"],
    [
      [ROOT, mount(11, 10, "/a"), mount(12, 10, "/a")],
      "entry 2, field mountpoint: another mount has this parent and mount point",
    ],
    [
      [ROOT, mount(11, 10, "/a"), mount(12, 11, "/b")],
      "entry 2, field mountpoint: is not on its parent, which is at /a",
    ],
    [
      [ROOT, mount(11, 12, "/a"), mount(12, 11, "/a")],
      "entry 1, field parent_mnt_id: does not lead to the root",
    ],
    [
      [ROOT, mount(11, 10, "/a/../b")],
      'entry 1, field mountpoint: "/a/../b" is no path',
    ],
    [
      [ROOT, mount(11, 10, "/a", { root: "a" })],
      'entry 1, field root: "a" is no path',
    ],
    [
      [ROOT, mount(11, 10, "/a", { shared_id: 7, master_id: 7 })],
      "entry 1, field master_id: is the group that it is in itself",
    ],
    [
      [
        ROOT,
        mount(11, 10, "/a", { shared_id: 7 }),
        mount(12, 10, "/b", { shared_id: 7, root_dev: 41 }),
      ],
      "entry 2, field root_dev: differs from that of its peers (group 7)",
    ],
    [
      [
        ROOT,
        mount(11, 10, "/a", { shared_id: 7 }),
        mount(12, 10, "/b", { shared_id: 7, master_id: 6 }),
      ],
      "entry 2, field master_id: differs from that of its peers (group 7)",
    ],
  ];
  for (const [mounts, words] of cases) {
    const told = wrong(mounts);
    assertEquals(
      told.filter((line) => line.includes(words)).length,
      1,
      `${words}: ${told}`,
    );
  }
  assertEquals(wrong([ROOT], [{ mnt_id: 11, host_path: "x", layers: [] }]), [
    "ckpt-mounts-20.img, entry 0, field mnt_id: 11 is there twice, or no mount",
    'ckpt-mounts-20.img, entry 0, field host_path: "x" is no path',
  ]);
  const layers = [{ role: 9, mnt_id: 10, path: "../up" }];
  assertEquals(wrong([ROOT], [{ mnt_id: 10, layers }]), [
    "ckpt-mounts-20.img, entry 0, field layers[0].role: 9 is no role of a layer",
    'ckpt-mounts-20.img, entry 0, field layers[0].path: "../up" is no way',
  ]);
});
