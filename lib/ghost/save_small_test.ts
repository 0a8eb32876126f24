import { assert, assertEquals, assertRejects } from "@std/assert";
import { CkptError } from "../error.ts";
import { addressOf, close, O, open, stat, syscall } from "../ffi/syscall.ts";
import { decodeWholeGhost } from "../image/ghost.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type { ckpt_ghost_entry } from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import { putTimes, setAttributes, TIMES_BYTES } from "./attributes.ts";
import { statx } from "./calls.ts";
import { type NumberedFile, SmallFiles } from "./save_small.ts";

/** Deleted files that are open here, of random sizes below 12 KiB. */
class OpenFiles implements Disposable {
  readonly directory = Deno.makeTempDirSync({ dir: "/dev/shm" });
  readonly all: NumberedFile[] = [];
  readonly contents: Uint8Array[] = [];
  readonly #fds: number[] = [];

  constructor(count: number) {
    const random = seededRandom(count);
    for (let id = 1; id <= count; id++) {
      const size = Math.floor(random() * random() * 12288);
      this.contents.push(crypto.getRandomValues(new Uint8Array(size)));
      Deno.writeFileSync(`${this.directory}/file`, this.contents[id - 1]);
      const fd = open(`${this.directory}/file`, O.RDWR);
      Deno.removeSync(`${this.directory}/file`);
      this.#fds.push(fd);
      const status = stat(fd);
      const file = {
        link: `${this.directory}/file (deleted)`,
        status,
        at: `/proc/${Deno.pid}/fd/${fd}`,
        holder: `descriptor ${fd}`,
        task: Deno.pid,
        allocated: status.allocated,
        fileSystem: 0x1021994n,
        mount: "reached" as const,
        otherName: undefined,
        mayHaveNoName: false,
        written: true,
      };
      this.all.push({ id, file });
    }
  }

  fd(id: number): number {
    return this.#fds[id - 1];
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) close(fd);
    Deno.removeSync(this.directory, { recursive: true });
  }
}

for (
  const [count, isHeld] of [[5, true], [5, false], [300, true], [
    300,
    false,
  ]] as const
) {
  Deno.test(
    `${count} small files are saved ${
      isHeld ? "in parts" : "at once"
    }, but those that are not plain`,
    async () => {
      using files = new OpenFiles(count);
      using writer = ImageWriter.open(`${files.directory}/images`, {
        replace: false,
      });
      // One has a hole, one an attribute, one was written before there was Unix.
      syscall("ftruncate", BigInt(files.fd(2)), 0n);
      syscall("ftruncate", BigInt(files.fd(2)), files.all[1].file.status.size);
      const [sparse, labelled, old] = [2, 3, 5];
      const times = { accessed: undefined, modified: undefined };
      setAttributes(files.fd(labelled), "labelling it", {
        ...stat(files.fd(labelled)),
        ...times,
        xattrs: [{ name: "trusted.one", value: new Uint8Array(1) }],
        inodeFlags: 0,
      });
      const before = new Uint8Array(TIMES_BYTES);
      putTimes(new DataView(before.buffer), 0, {
        accessed: undefined,
        modified: { seconds: -1n, nanoseconds: 5 },
      });
      const NO_PATH = 0n;
      syscall(
        "utimensat",
        BigInt(files.fd(old)),
        NO_PATH,
        addressOf(before),
      );
      const extensions: ckpt_ghost_entry[] = [];
      const small = new SmallFiles(writer, {
        isHeld,
        atOnce: 50_000,
      });
      const others = await small.read(files.all, extensions);
      await small.write();
      assertEquals(others.map(({ id }) => id), [sparse, labelled]);
      for (const { id, file } of files.all) {
        const name = imageName("ghost-file", id);
        const path = `${writer.unfinished}/${name}`;
        if (others.some((other) => other.id === id)) {
          assert(!exists(path));
          continue;
        }
        const bytes = Deno.readFileSync(path);
        const set = { directory: writer.unfinished } as never;
        const { entry, chunks } = decodeWholeGhost(set, id, bytes)!;
        const length = file.status.size === 0n ? [] : [bytes.length];
        assertEquals(chunks.map((one) => one.position + one.length), length);
        const start = bytes.length - Number(file.status.size);
        assertEquals(bytes.subarray(start), files.contents[id - 1]);
        const { uid, gid, mode, dev, ino } = file.status;
        const { accessed, modified } = statx(file.at);
        const rest = extensions.find(({ ghost_id }) => ghost_id === id);
        const timeval = ({ seconds, nanoseconds }: typeof accessed) => ({
          tv_sec: BigInt.asUintN(64, seconds),
          tv_usec: BigInt(Math.floor(nanoseconds / 1000)),
        });
        assertEquals(entry, {
          uid,
          gid,
          mode,
          dev: Number(dev),
          ino,
          atim: timeval(accessed),
          mtim: timeval(modified),
        });
        assertEquals(
          [rest?.atime_ns ?? 0, rest?.mtime_ns ?? 0],
          [accessed.nanoseconds % 1000, modified.nanoseconds % 1000],
        );
      }
      await small[Symbol.asyncDispose]();
    },
  );
}

Deno.test("an image that cannot be written is told by its name", async () => {
  using files = new OpenFiles(40);
  using writer = ImageWriter.open(`${files.directory}/images`, {
    replace: false,
  });
  const small = new SmallFiles(writer, { isHeld: true });
  assertEquals(await small.read(files.all, []), []);
  writer.createRaw(imageName("ghost-file", 7));
  const error = await assertRejects(() => small.write(), CkptError);
  assertEquals(error.reasons[0].object, imageName("ghost-file", 7));
  await small[Symbol.asyncDispose]();
});

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

for (const isHeld of [true, false]) {
  Deno.test(
    `files are expected ${
      isHeld ? "and held" : "and saved"
    }, and some of them are others by then, or not wanted`,
    async () => {
      using files = new OpenFiles(400);
      using writer = ImageWriter.open(`${files.directory}/images`, {
        replace: false,
      });
      await using small = new SmallFiles(writer, { isHeld });
      const seen = files.all.map(({ file }) => {
        const [, tid, fd] = /(\d+)\D+(\d+)/.exec(file.at)!.map(Number);
        return { ...file, descriptor: { tid, fd } };
      });
      const [closed, grown, late] = [10, 20, 350];
      small.expect(seen.filter((_, i) => i !== late));
      assertEquals(small.expectedCount, 399);
      close(files.fd(grown + 1));
      const other = open(files.directory, O.RDONLY);
      assertEquals(other, files.fd(grown + 1));
      small.begin();
      const extensions: ckpt_ghost_entry[] = [];
      const ids = seen.map((file, i) =>
        i === closed || i === late ? undefined : small.take(file)
      );
      const more = [{ id: 400, file: seen[late] }];
      const others = await small.read(more, extensions);
      await small.write();
      assertEquals(others.map(({ id }) => id), [ids[grown]]);
      assertEquals(small.take(seen[late]), undefined);
      const missing = [ids[grown], closed + 1];
      for (let id = 1; id <= 400; id++) {
        const path = `${writer.unfinished}/${imageName("ghost-file", id)}`;
        assertEquals(exists(path), !missing.includes(id), path);
        if (missing.includes(id)) continue;
        const at = id === 400 ? late : ids.indexOf(id);
        const bytes = Deno.readFileSync(path);
        const start = bytes.length - files.contents[at].length;
        assertEquals(bytes.slice(start), files.contents[at]);
      }
    },
  );
}
