import { assertEquals } from "@std/assert";
import { close, O, open } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { encodeImage } from "../image/framing.ts";
import { readGhost } from "../image/ghost.ts";
import { readImageSet } from "../image/image_set.ts";
import {
  minimalImage,
  writeWithoutManifest,
} from "../image/testing/minimal_image.ts";
import { seededRandom } from "../image/testing/random.ts";
import { copyRanges, saveInChunks } from "./content.ts";
import { SILENT } from "./testing/silent.ts";

const BLOCK = 4096;

for (const isAligned of [false, true]) {
  Deno.test(
    `data between holes become chunks${
      isAligned ? " where blocks can be shared" : ""
    }, and data again`,
    async () => {
      const directory = Deno.makeTempDirSync({ dir: "/dev/shm" });
      const fds: number[] = [];
      const openFile = (name: string, flags: number) => {
        fds.push(open(encodeText(`${directory}/${name}`), flags));
        return fds.at(-1)!;
      };
      try {
        const random = seededRandom(5);
        using file = Deno.openSync(`${directory}/file`, {
          write: true,
          createNew: true,
        });
        let size = 0;
        let needed = 0;
        for (let i = 0; i < 40; i++) {
          size += BLOCK * (1 + Math.floor(random() * 30));
          const blocks = 1 + Math.floor(random() * random() * 60);
          const data = crypto.getRandomValues(new Uint8Array(BLOCK));
          for (let n = 0; n < blocks; n++, size += BLOCK) {
            file.seekSync(size, Deno.SeekMode.Start);
            file.writeSync(data);
          }
          needed += blocks * BLOCK;
        }
        size += 100_000;
        file.truncateSync(size);
        writeWithoutManifest(directory, minimalImage());
        const head = encodeImage("ghost-file", {
          uid: 0,
          gid: 0,
          mode: 0o100600,
          chunks: true,
          size: BigInt(size),
        });
        Deno.writeFileSync(`${directory}/ghost-file-1.img`, head);
        const from = openFile("file", O.RDONLY);
        const content = {
          size,
          allocated: needed,
          position: head.length,
          isAligned,
        };
        const image = openFile("ghost-file-1.img", O.RDWR);
        const needs = await saveInChunks(from, image, content, "", SILENT);
        assertEquals(needs, needed);
        const { chunks } = readGhost(readImageSet(directory), 1);
        assertEquals(
          chunks.reduce((sum, { length }) => sum + length, 0),
          needed,
        );
        for (const { offset, length, position } of chunks) {
          const isShared = isAligned && length >= 65536;
          if (isShared) assertEquals((position - offset) % BLOCK, 0);
        }
        const ranges = chunks.map(({ offset: to, length, position: from }) => ({
          from,
          to,
          length,
        }));
        Deno.writeFileSync(`${directory}/again`, new Uint8Array());
        Deno.truncateSync(`${directory}/again`, size);
        const again = openFile("again", O.RDWR);
        await copyRanges(image, again, ranges, "", SILENT);
        assertEquals(
          Deno.readFileSync(`${directory}/again`),
          Deno.readFileSync(`${directory}/file`),
        );
      } finally {
        for (const fd of fds) close(fd);
        Deno.removeSync(directory, { recursive: true });
      }
    },
  );
}
