import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import type { Content } from "../kinds.ts";
import { type ckpt_pipe_entry, fd_types } from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
const WRONLY = 1;

/** An image with a pipe, a fifo and a pidfd, and what is in them. */
interface PipeImage extends MinimalImage {
  pipesData: Content<"pipes-data">;
  fifoData: Content<"fifo-data">;
  extensions: ckpt_pipe_entry[];
}

function data(pipe_id: number, bytes: number) {
  return { pipe_id, bytes, size: 65536, extra: new Uint8Array(bytes) };
}

function pipeImage(): PipeImage {
  const image = minimalImage();
  image.files.push(
    {
      type: fd_types.PIPE,
      id: 20,
      pipe: { id: 20, pipe_id: 777, flags: WRONLY, fown },
    },
    { type: fd_types.FIFO, id: 21, fifo: { id: 21, pipe_id: 778, regf_id: 2 } },
    {
      type: fd_types.PIDFD,
      id: 22,
      pidfd: { id: 22, ino: 5, flags: 2, nspid: image.pid, fown },
    },
    {
      type: fd_types.PIDFD,
      id: 23,
      pidfd: { id: 23, ino: 6, flags: 2, nspid: -1, fown },
    },
  );
  return {
    ...image,
    pipesData: [data(777, 5000)],
    fifoData: [data(778, 3)],
    extensions: [
      { pipe_id: 777, packets: [4096, 904], unconnected: [] },
      { pipe_id: 778, packets: [], unconnected: [21] },
    ],
  };
}

/** What is told to be wrong. */
function complaints(
  change: (image: PipeImage) => void,
): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = pipeImage();
    change(image);
    writeWithoutManifest(directory, image);
    const write = (name: string, bytes: Uint8Array) =>
      Deno.writeFileSync(`${directory}/${name}.img`, bytes);
    write("pipes-data", encodeImage("pipes-data", image.pipesData));
    write("fifo-data", encodeImage("fifo-data", image.fifoData));
    write("ckpt-pipes", encodeImage("ckpt-pipes", image.extensions));
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("pipes, fifos and pidfds that fit together are fine", async () => {
  assertEquals(await complaints(() => {}), []);
  // CRIU writes no packets; and data of pipes that nobody holds does no harm.
  assertEquals(
    await complaints((image) => {
      const rest = { packets: [], external: true, unconnected: [] };
      image.extensions = [{ pipe_id: 777, ...rest }];
      image.pipesData = [data(1, 7)];
    }),
    [],
  );
});

const DAMAGES: readonly (readonly [(image: PipeImage) => void, string])[] = [
  [
    (i) => i.files.at(-4)!.pipe!.flags = 3,
    "files.img, entry 4, field pipe.flags: 03 is no end of a pipe",
  ],
  [
    (i) => delete i.files.at(-3)!.fifo!.regf_id,
    "files.img, entry 5, field fifo.regf_id: is missing",
  ],
  [
    (i) => i.files.at(-3)!.fifo!.regf_id = 20,
    "files.img, entry 5, field fifo.regf_id: 20 is no regular file",
  ],
  [
    (i) => i.files.at(-2)!.pidfd!.nspid = 7,
    "files.img, entry 6, field pidfd.nspid: 7 is no process of pstree.img",
  ],
  [
    (i) => i.pipesData.push(data(777, 1)),
    "pipes-data.img, entry 1, field pipe_id: 777 is there twice",
  ],
  [
    (i) => i.fifoData[0].size = 2 ** 31 + 1,
    "fifo-data.img, entry 0, field size: 2147483649 is more than a pipe can have",
  ],
  [
    (i) => i.extensions[0].pipe_id = 5,
    "ckpt-pipes.img, entry 0, field pipe_id: 5 is no pipe of files.img",
  ],
  [
    (i) => i.extensions[0].packets = [904, 4096, 0],
    "ckpt-pipes.img, entry 0, field packets: 0 is not the length of a packet",
  ],
  [
    (i) => i.extensions[0].packets = [4097, 903],
    "ckpt-pipes.img, entry 0, field packets: 4097 is not the length of a packet",
  ],
  [
    (i) => i.extensions[0].packets.push(1),
    "ckpt-pipes.img, entry 0, field packets: have 5001 bytes, but the pipe 5000",
  ],
  [
    (i) => i.extensions[0].mode = 0o100600,
    "ckpt-pipes.img, entry 0, field mode: 0100600 is more than permissions",
  ],
  [
    (i) => i.extensions[1].unconnected.push(20),
    "ckpt-pipes.img, entry 1, field unconnected: 20 is no descriptor of this " +
    "fifo",
  ],
  [
    (i) => i.pipesData = [],
    "ckpt-pipes.img, entry 0, field packets: have 5000 bytes, but the pipe 0",
  ],
];

for (const [change, complaint] of DAMAGES) {
  Deno.test(`refuses an image for: ${complaint}`, async () => {
    const told = await complaints(change);
    assertEquals(told.includes(complaint), true, told.join("\n"));
  });
}

Deno.test("what is said of ghosts has to be of ghosts, once each, and possible", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  const ghost = (ghost_id: number, start = 0n, end = 1n) => ({
    ghost_id,
    xattrs: [],
    allocated: [{ start, end }],
  });
  const told = (...ghosts: ReturnType<typeof ghost>[]) => {
    Deno.writeFileSync(
      `${directory}/ckpt-ghosts.img`,
      encodeImage("ckpt-ghosts", ghosts) as Uint8Array<ArrayBuffer>,
    );
    return wrongIn(directory);
  };
  try {
    writeWithoutManifest(directory, minimalImage());
    Deno.writeFileSync(
      `${directory}/ghost-file-1f.img`,
      encodeImage("ghost-file", {
        uid: 0,
        gid: 0,
        mode: 0o100600,
      }) as Uint8Array<ArrayBuffer>,
    );
    const field = "ckpt-ghosts.img, entry";
    assertEquals(await told(ghost(0x1f)), []);
    assertEquals(await told(ghost(0x1f), ghost(0x1f)), [
      `${field} 1, field ghost_id: 31 is there twice`,
    ]);
    assertEquals(await told(ghost(1)), [
      `${field} 0, field ghost_id: ghost-file-1.img is missing`,
    ]);
    assertEquals(await told(ghost(0x1f, 5n, 5n)), [
      `${field} 0, field allocated: 5 to 5 is no part of a file`,
    ]);
    assertEquals(await told(ghost(0x1f, 5n, 2n ** 63n)), [
      `${field} 0, field allocated: 5 to ${2n ** 63n} is no part of a file`,
    ]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
