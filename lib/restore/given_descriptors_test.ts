import { assert, assertEquals } from "@std/assert";
import { close, O, open, readLink } from "../ffi/syscall.ts";
import { readImageSet } from "../image/image_set.ts";
import { fd_types, type tty_info_entry } from "../image/schema.gen.ts";
import { encodeImage } from "../image/framing.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../image/testing/minimal_image.ts";
import { chooseGiven, type Given, releaseGiven } from "./given_descriptors.ts";
import type { RestoreOptions } from "./options.ts";
import { readTreeImages } from "./task_images.ts";

const OPTIONS: RestoreOptions = {
  imagesDirectory: "",
  workDirectory: "",
  detached: false,
  sibling: false,
  leaveStopped: false,
  shellJob: false,
  external: [],
  inheritFd: [],
};

const PIPE = 20;
const TERMINAL = 21;

function withPipe(image: MinimalImage): void {
  const { fown } = image.files[0].reg!;
  image.files.push({
    type: fd_types.PIPE,
    id: PIPE,
    pipe: { id: PIPE, pipe_id: 777, flags: O.WRONLY, fown },
  });
  image.fdinfo.push(
    { id: PIPE, flags: 0, type: fd_types.PIPE, fd: 5 },
    { id: PIPE, flags: 0, type: fd_types.PIPE, fd: 6 },
  );
}

function withTerminal(image: MinimalImage): void {
  const { fown } = image.files[0].reg!;
  image.files.push({
    type: fd_types.TTY,
    id: TERMINAL,
    tty: { id: TERMINAL, tty_info_id: 2, flags: O.RDWR, fown, regf_id: 2 },
  });
  image.fdinfo.push({ id: TERMINAL, flags: 0, type: fd_types.TTY, fd: 7 });
}

const INFO: tty_info_entry = {
  id: 2,
  type: 3,
  locked: false,
  exclusive: false,
  packet_mode: false,
  sid: 1,
  pgrp: 1,
  rdev: 0x8801,
  dev: 0x16,
};

async function choose(
  change: (image: MinimalImage) => void,
  options: Partial<RestoreOptions>,
  use: (given: Given, options: RestoreOptions) => void,
  external = true,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const image = minimalImage();
    change(image);
    writeWithoutManifest(directory, image);
    Deno.writeFileSync(
      `${directory}/tty-info.img`,
      encodeImage("tty-info", [INFO]),
    );
    Deno.writeFileSync(
      `${directory}/ckpt-pipes.img`,
      encodeImage("ckpt-pipes", [
        { pipe_id: 777, packets: [], external, unconnected: [] },
      ]),
    );
    const all = { ...OPTIONS, ...options };
    use(chooseGiven(readTreeImages(readImageSet(directory)), all), all);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function isOpen(fd: number): boolean {
  try {
    readLink(`/proc/self/fd/${fd}`);
    return true;
  } catch {
    return false;
  }
}

Deno.test("a program whose files all have paths needs nothing", async () => {
  await choose(() => {}, {}, (given) => {
    assertEquals(given.reasons, []);
    assertEquals(given.byFile.size, 0);
  });
});

Deno.test("a pipe of the outside has to be given, once for all its descriptors", async () => {
  await choose(withPipe, {}, ({ reasons }) => {
    assertEquals(reasons, [{
      object: "pipe pipe:[777]",
      why: "the program got it from outside",
      remedy: "give one: --inherit-fd fd[N]:pipe:[777]",
    }]);
  });
  for (const key of ["pipe:[777]", "pipe[777]"]) {
    const fd = open("/dev/null", O.WRONLY);
    await choose(withPipe, { inheritFd: [{ fd, key }] }, (given, options) => {
      assertEquals(given.reasons, []);
      assertEquals([...given.byFile.keys()], [PIPE]);
      const { fd: duplicate, reopen } = given.byFile.get(PIPE)!;
      assertEquals(reopen, false);
      assert(duplicate !== fd && duplicate > 2);
      assertEquals(
        new TextDecoder().decode(readLink(`/proc/self/fd/${duplicate}`)),
        "/dev/null",
      );
      releaseGiven(given, options);
      assertEquals([isOpen(fd), isOpen(duplicate)], [false, false]);
    });
  }
});

Deno.test("a pipe of the program's own need not be given", async () => {
  await choose(withPipe, {}, ({ reasons, byFile }) => {
    assertEquals(reasons, []);
    assertEquals(byFile.size, 0);
  }, false);
});

Deno.test("of a pipe that is given by its other end, the wanted one is opened", async () => {
  const fd = open("/dev/null", O.RDONLY);
  const inheritFd = [{ fd, key: "pipe:[777]" }];
  await choose(withPipe, { inheritFd }, (given, options) => {
    assertEquals(given.byFile.get(PIPE)!.reopen, true);
    releaseGiven(given, options);
  });
});

Deno.test("any file may be replaced, by its path with or without a slash", async () => {
  for (const key of ["/dev/null", "dev/null"]) {
    const fd = open("/dev/zero", O.RDONLY);
    await choose(() => {}, { inheritFd: [{ fd, key }] }, (given, options) => {
      assertEquals(given.reasons, []);
      assertEquals([...given.byFile.keys()], [2]);
      releaseGiven(given, options);
    });
  }
});

Deno.test("a terminal is found by its device, and asked for otherwise", async () => {
  await choose(withTerminal, {}, ({ reasons }) => {
    assertEquals(reasons, [{
      object: "the terminal of the program (tty[8801:16])",
      why: "it is not part of the image",
      remedy: "give --shell-job on a terminal, or " +
        "--inherit-fd fd[N]:tty[8801:16]",
    }]);
  });
  const fd = open("/dev/null", O.RDWR);
  const inheritFd = [{ fd, key: "tty[8801:16]" }];
  await choose(withTerminal, { inheritFd }, (given, options) => {
    assertEquals(given.reasons, []);
    assertEquals([...given.byFile.keys()], [TERMINAL]);
    releaseGiven(given, options);
  });
});

Deno.test("what is given in vain, or is not open, is told", async () => {
  const fd = open("/dev/null", O.RDONLY);
  const inheritFd = [{ fd, key: "/srv/nothing" }, {
    fd: 9999,
    key: "/dev/null",
  }];
  try {
    await choose(() => {}, { inheritFd }, ({ reasons, byFile }) => {
      assertEquals(byFile.size, 0);
      assertEquals(reasons.map(({ object, why }) => [object, why]), [
        [
          `--inherit-fd fd[${fd}]:/srv/nothing`,
          "the program has no file with this key",
        ],
        [
          "--inherit-fd fd[9999]:/dev/null",
          "ckpt has no descriptor 9999",
        ],
      ]);
    });
  } finally {
    close(fd);
  }
});
