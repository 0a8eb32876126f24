/** What an image tells of inotify and fanotify, in CRIU's entries and ours. */
import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import {
  type ckpt_watches_entry,
  fd_types,
  type fh_entry,
  mark_type,
} from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
const bits = { mask: 1, ignored_mask: 0, mflags: 0 };

interface WatchImage extends MinimalImage {
  handle: fh_entry;
  watches: ckpt_watches_entry[];
}

/** An inotify as descriptor 3, and a fanotify as 4. */
function watchImage(): WatchImage {
  const image = minimalImage();
  const handle: fh_entry = {
    bytes: 12,
    type: 1,
    handle: Array<bigint>(16).fill(0n),
    path: "/file",
  };
  const wd = { id: 20, i_ino: 7n, s_dev: 1, wd: 1, f_handle: handle };
  image.files.push(
    {
      type: fd_types.INOTIFY,
      id: 20,
      ify: { id: 20, flags: 0, fown, wd: [{ ...wd, ...bits }] },
    },
    {
      type: fd_types.FANOTIFY,
      id: 21,
      ffy: {
        id: 21,
        flags: 2,
        fown,
        faflags: 0,
        evflags: 0,
        mark: [{
          ...bits,
          id: 21,
          type: mark_type.MOUNT,
          s_dev: 0,
          me: { mnt_id: 3, path: "/mount" },
        }],
      },
    },
  );
  image.fdinfo.push(
    { id: 20, flags: 0, type: fd_types.INOTIFY, fd: 3 },
    { id: 21, flags: 0, type: fd_types.FANOTIFY, fd: 4 },
  );
  const file = image.files.find(({ reg }) => reg !== undefined)!.id;
  return {
    ...image,
    handle,
    watches: [
      { id: 20, targets: [{ index: 0, file }], filesystems: [] },
      {
        id: 21,
        targets: [],
        filesystems: [{ ...bits, index: 1, path: "/" }],
        lost_events: 24,
      },
    ],
  };
}

function complaints(
  change: (image: WatchImage) => void,
): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = watchImage();
    change(image);
    writeWithoutManifest(directory, image);
    Deno.writeFileSync(
      `${directory}/ckpt-watches.img`,
      encodeImage("ckpt-watches", image.watches),
    );
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("watches of files without a path and marks on file systems are told", () => {
  assertEquals(complaints(() => {}), []);
});

const mark = ({ files }: WatchImage) =>
  files.find(({ ffy }) => ffy !== undefined)!.ffy!.mark[0];

const DAMAGES: readonly (readonly [(image: WatchImage) => void, RegExp])[] = [
  [
    (i) => i.watches.push(i.watches[0]),
    /^ckpt-watches.img, entry 2, field id: 20 is there twice$/,
  ],
  [
    (i) => Object.assign(i.watches[0], { id: 1, targets: [] }),
    /^ckpt-watches.img, entry 0, field id: 1 is no inotify or fanotify$/,
  ],
  [
    (i) => i.watches[0].targets[0].index = 1,
    /^ckpt-watches.img, entry 0, field targets.index: 20 has no watch 1$/,
  ],
  [
    (i) => i.watches[0].targets[0].file = 21,
    /^ckpt-watches.img, entry 0, field targets.file: 21 is no file with a path$/,
  ],
  [
    (i) => i.watches[1].filesystems[0].index = 2,
    /^ckpt-watches.img, entry 1, field filesystems.index: 21 has no place 2/,
  ],
  [
    (i) => i.watches[1].filesystems[0].path = "x",
    /^ckpt-watches.img, entry 1, field filesystems.path: "x" is no absolute/,
  ],
  [
    (i) => i.handle.bytes = 129,
    /^files.img, .*field ify.wd\[0\].f_handle.bytes: 129 are not there$/,
  ],
  [
    (i) => i.handle.handle.length = 1,
    /^files.img, .*field ify.wd\[0\].f_handle.bytes: 12 are not there$/,
  ],
  [
    (i) => i.handle.path = "",
    /^files.img, .*field ify.wd\[0\].f_handle.path: "" is no absolute path$/,
  ],
  [
    (i) => mark(i).me!.path = "m",
    /^files.img, .*field ffy.mark\[0\].me.path: "m" is no absolute path$/,
  ],
  [
    (i) => mark(i).type = mark_type.INODE,
    /^files.img, .*field ffy.mark\[0\]: is not as its type 1 says$/,
  ],
];

for (const [change, complaint] of DAMAGES) {
  Deno.test(`refuses an image for: ${complaint.source}`, () => {
    const [first, ...others] = complaints(change);
    assertEquals(complaint.test(first), true, first);
    assertEquals(others.filter((other) => !complaint.test(other)), []);
  });
}
