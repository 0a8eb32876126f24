/** Pseudo terminals of an image: their numbers and masters. */
import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import {
  type ckpt_terminal_entry,
  fd_types,
  type tty_data_entry,
  type tty_info_entry,
  TtyType,
} from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const INFO: tty_info_entry = {
  id: 7,
  type: TtyType.PTY,
  locked: false,
  exclusive: false,
  packet_mode: false,
  sid: 0,
  pgrp: 0,
  rdev: 1282,
  pty: { index: 3 },
};

function problems(
  infos: readonly tty_info_entry[],
  change: (image: MinimalImage) => void = () => {},
  data: readonly tty_data_entry[] = [],
  extensions: readonly ckpt_terminal_entry[] = [],
): readonly string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage();
    change(image);
    writeWithoutManifest(directory, image);
    Deno.writeFileSync(
      `${directory}/tty-info.img`,
      encodeImage("tty-info", [...infos]),
    );
    Deno.writeFileSync(
      `${directory}/tty-data.img`,
      encodeImage("tty-data", [...data]),
    );
    Deno.writeFileSync(
      `${directory}/ckpt-terminals.img`,
      encodeImage("ckpt-terminals", [...extensions]),
    );
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Files of the master, by ids. */
function masters(image: MinimalImage, ...ids: number[]): void {
  const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
  const regf_id = image.files.find(({ reg }) => reg)!.id;
  for (const id of ids) {
    const tty = { id, tty_info_id: 7, flags: 2, fown, regf_id };
    image.files.push({ type: fd_types.TTY, id, tty });
  }
}

Deno.test("terminals have a number that fits, and one master", () => {
  assertEquals(problems([INFO], (image) => masters(image, 50)), []);
  const entry = "tty-info.img, entry 0, field";
  assertEquals(problems([{ ...INFO, pty: { index: 4 } }]), [
    `${entry} pty.index: 4 is not the terminal of entry 7`,
  ]);
  assertEquals(
    problems([{ ...INFO, id: 2 ** 31 + 1, pty: { index: 2 ** 30 } }]),
    [
      `${entry} pty.index: 1073741824 is not the terminal of entry 2147483649`,
    ],
  );
  assertEquals(problems([{ ...INFO, pty: undefined }]), [
    `${entry} pty: is missing`,
  ]);
  assertEquals(problems([INFO, INFO]), [
    "tty-info.img, entry 1, field id: 7 is there twice",
  ]);
  const twice = problems([INFO], (image) => masters(image, 50, 51));
  assertEquals(twice.length, 1);
  assertEquals(twice[0].endsWith("7 is the master of another file, too"), true);
});

Deno.test("what is under way in terminals fits into them, and its lines into that", async () => {
  const slave = { ...INFO, id: 6, rdev: 34819 };
  const told = (
    data: readonly tty_data_entry[],
    ...extensions: ckpt_terminal_entry[]
  ) =>
    problems(
      [INFO, slave],
      (image) => masters(image, 50),
      data,
      extensions,
    );
  const bytes = (tty_id: number, length: number) => ({
    tty_id,
    data: new Uint8Array(length),
  });
  const lines = (...lengths: number[]) => ({
    index: 3,
    lines: lengths.map((length) => ({ length })),
    without: [],
  });
  assertEquals(await told([bytes(6, 5), bytes(7, 9)], lines(2, 3)), []);
  const eof = { length: 0, ended_by_eof: true };
  assertEquals(await told([], { ...lines(), lines: [eof] }), []);
  assertEquals(await told([bytes(6, 4)], lines(2, 3)), [
    "ckpt-terminals.img, entry 0, field lines: have 5 bytes, but 4 are there",
  ]);
  assertEquals(await told([], lines(0)), [
    "ckpt-terminals.img, entry 0, field lines: one has no byte that ends it",
  ]);
  assertEquals(await told([bytes(8, 1)]), [
    "tty-data.img, entry 0, field tty_id: 8 is no terminal of tty-info.img",
  ]);
  assertEquals(await told([bytes(6, 70000)]), [
    "tty-data.img, entry 0, field data: 70000 bytes are more than a terminal " +
    "can hold",
  ]);
  assertEquals(
    await told([], {
      ...lines(),
      index: 4,
      mode: 0o10000,
      without: [99999],
      typed: new Uint8Array(70000),
    }),
    [
      "ckpt-terminals.img, entry 0, field index: 4 is no terminal of " +
      "tty-info.img",
      "ckpt-terminals.img, entry 0, field typed: has more bytes than a " +
      "terminal can hold",
      "ckpt-terminals.img, entry 0, field mode: 010000 is more than permissions",
      "ckpt-terminals.img, entry 0, field without: 99999 is not in pstree.img",
    ],
  );
});
