/** What an image tells of epolls and eventfds beyond CRIU's entries. */
import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import { type ckpt_file_entry, fd_types } from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };

interface ObjectImage extends MinimalImage {
  extensions: ckpt_file_entry[];
}

/** An eventfd as descriptor 4, and an epoll as 3 that watches it as 60. */
function objectImage(): ObjectImage {
  const image = minimalImage();
  const target = { id: 0, tfd: 60, events: 1, data: 0n };
  image.files.push(
    {
      type: fd_types.EVENTFD,
      id: 20,
      efd: { id: 20, flags: 2, fown, counter: 0n },
    },
    {
      type: fd_types.EVENTPOLL,
      id: 21,
      epfd: { id: 21, flags: 2, fown, tfd: [target] },
    },
  );
  image.fdinfo.push(
    { id: 21, flags: 0, type: fd_types.EVENTPOLL, fd: 3 },
    { id: 20, flags: 0, type: fd_types.EVENTFD, fd: 4 },
  );
  return {
    ...image,
    extensions: [
      { id: 20, semaphore: true, watched: [] },
      { id: 21, watched: [{ index: 0, number: 60, file: 20 }] },
    ],
  };
}

function complaints(
  change: (image: ObjectImage) => void,
): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = objectImage();
    change(image);
    writeWithoutManifest(directory, image);
    Deno.writeFileSync(
      `${directory}/ckpt-files.img`,
      encodeImage("ckpt-files", image.extensions),
    );
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("an epoll may watch by a number that is told to be another file's", async () => {
  assertEquals(await complaints(() => {}), []);
});

const DAMAGES: readonly (readonly [(image: ObjectImage) => void, string])[] = [
  [
    (i) => i.extensions.pop(),
    "files.img, field epfd.tfd: epoll 21 watches 1; no table with it has all " +
    "of them",
  ],
  [
    (i) => i.extensions.push(i.extensions[0]),
    "ckpt-files.img, entry 2, field id: 20 is there twice",
  ],
  [
    (i) => i.extensions[0].id = 2,
    "ckpt-files.img, entry 0, field id: 2 is no eventfd",
  ],
  [
    (i) => i.extensions[1].watched.push({ index: 1, number: 5, file: 20 }),
    "ckpt-files.img, entry 1, field watched.index: epoll 21 has no entry 1",
  ],
  [
    (i) => i.extensions[1].watched[0].number = 2 ** 31,
    "ckpt-files.img, entry 1, field watched.number: 2147483648 is no descriptor",
  ],
  [
    (i) => i.fdinfo.pop(),
    "ckpt-files.img, entry 1, field watched.file: no process has file 20 open",
  ],
];

for (const [change, complaint] of DAMAGES) {
  Deno.test(`refuses an image for: ${complaint}`, async () => {
    assertEquals(await complaints(change), [complaint]);
  });
}
