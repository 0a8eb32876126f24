/** Deleted files on their way into an image and out of it, on real file systems. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  close,
  O,
  open,
  pread,
  pwrite,
  stat,
  syscall,
} from "../ffi/syscall.ts";
import { encodeImage } from "../image/framing.ts";
import { type ImageSet, readImageSet } from "../image/image_set.ts";
import { ImageWriter } from "../image/image_writer.ts";
import {
  type file_entry,
  type ghost_file_entry,
  remap_type,
} from "../image/schema.gen.ts";
import {
  imageParts,
  minimalImage,
  writeWithoutManifest,
} from "../image/testing/minimal_image.ts";
import { seededRandom } from "../image/testing/random.ts";
import { FileTable } from "../files/file_table.ts";
import { readInodeFlags, readXattrs, setAttributes } from "./attributes.ts";
import { linkTo, statx } from "./calls.ts";
import { dataSegments, unwrittenSegments } from "./content.ts";
import { FilesInUse } from "./files_in_use.ts";
import { DumpLinks } from "./links.ts";
import { MadeFiles } from "./make.ts";
import { readRemaps } from "./remaps.ts";
import { saveLostFiles } from "./save.ts";
import { SmallFiles } from "./save_small.ts";
import { SILENT } from "./testing/silent.ts";

const DIRECTORIES = ["/tmp", "/dev/shm"];

class Place implements Disposable {
  readonly path: string;
  readonly images: string;
  readonly #fds: number[] = [];

  constructor(dir: string) {
    this.path = Deno.makeTempDirSync({ dir, prefix: "ckpt-ghost-" });
    this.images = `${this.path}/images`;
  }

  open(name: string, flags: number, mode = 0o600): number {
    const fd = open(`${this.path}/${name}`, flags, mode);
    this.#fds.push(fd);
    return fd;
  }

  names(): string[] {
    return [...Deno.readDirSync(this.path)].map(({ name }) => name)
      .filter((name) => name !== "images").sort();
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) close(fd);
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** Saves deleted files that are open here; reads the image back. */
async function save(
  place: Place,
  fds: readonly number[],
): Promise<{ set: ImageSet; files: Map<number, file_entry>; ids: number[] }> {
  const files = new FilesInUse();
  const uses = fds.map((fd) => ({
    at: `/proc/self/fd/${fd}`,
    link: Deno.readLinkSync(`/proc/self/fd/${fd}`),
    holder: `descriptor ${fd}`,
    task: 1,
    writes: true,
    status: stat(fd),
  }));
  for (const use of uses) files.look(use);
  using writer = ImageWriter.open(place.images, { replace: true });
  using links = new DumpLinks(place.images);
  const saved = saveLostFiles(
    files,
    {},
    new SmallFiles(writer, { isHeld: false }),
    writer,
    links,
    SILENT,
  );
  await saved.copied;
  saved.finish();
  await saved.written();
  const table = new FileTable(saved);
  const ids = uses.map(({ link, status }, i) =>
    table.addNamed({
      path: link,
      status,
      pos: 0n,
      owner: { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 },
      flags: Number(syscall("fcntl", BigInt(fds[i]), 3n)),
    })
  );
  for (const [kind, index, content] of imageParts(minimalImage())) {
    if (kind === "inventory" || kind === "files") continue;
    writer.write(kind, index, content);
  }
  Deno.writeFileSync(
    writer.createRaw("pages-1.img"),
    minimalImage().pages as Uint8Array<ArrayBuffer>,
  );
  writer.write("files", undefined, table.entries);
  writer.write("remap-fpath", undefined, table.remaps);
  if (saved.ghosts.length > 0) {
    writer.write("ckpt-ghosts", undefined, saved.ghosts);
  }
  await writer.commit(minimalImage().inventory, "0");
  links.commit();
  return {
    set: readImageSet(place.images),
    files: new Map(table.entries.map((entry) => [entry.id, entry])),
    ids,
  };
}

async function make(
  { set, files }: { set: ImageSet; files: ReadonlyMap<number, file_entry> },
): Promise<MadeFiles> {
  const remaps = readRemaps(set, files);
  const made = await MadeFiles.make(set, remaps, files, SILENT);
  await made.filled();
  return made;
}

function bytesOf(fd: number): Uint8Array {
  const bytes = new Uint8Array(Number(stat(fd).size));
  assertEquals(pread(fd, bytes, 0n), bytes.length);
  return bytes;
}

for (const directory of DIRECTORIES) {
  Deno.test(`random files with holes come back as they were, holes and all, in ${directory}`, async () => {
    const random = seededRandom(7);
    using place = new Place(directory);
    const fds: number[] = [];
    for (let i = 0; i < 20; i++) {
      const fd = place.open(`file${i}`, O.RDWR | O.CREAT);
      for (let part = Math.floor(random() * 4); part > 0; part--) {
        const bytes = crypto.getRandomValues(
          new Uint8Array(1 + Math.floor(random() * 60_000)),
        );
        pwrite(fd, bytes, BigInt(Math.floor(random() * 3_000_000)));
      }
      if (random() < 0.3) {
        syscall("ftruncate", BigInt(fd), BigInt(Math.floor(random() * 4e6)));
      }
      Deno.removeSync(`${place.path}/file${i}`);
      fds.push(fd);
    }
    const image = await save(place, fds);
    using made = await make(image);
    assertEquals(place.names(), []);
    image.ids.forEach((id, i) => {
      const { fd: handle, reopen } = made.byFile.get(id)!;
      assert(reopen);
      const at = `/proc/self/fd/${handle}`;
      assertEquals(
        Deno.readLinkSync(at),
        `${place.path}/file${i} (deleted)`,
      );
      const fd = open(at, O.RDWR);
      try {
        const [before, after] = [stat(fds[i]), stat(fd)];
        const same = (
          { mode, uid, gid, size, nlink }: typeof before,
        ) => [mode, uid, gid, size, nlink];
        assertEquals(same(after), same(before));
        assert(after.ino !== before.ino);
        assertEquals(bytesOf(fd), bytesOf(fds[i]));
        const size = Number(before.size);
        assertEquals(dataSegments(fd, size), dataSegments(fds[i], size));
        const times = (path: string) => statx(path).modified;
        assertEquals(times(at), times(`/proc/self/fd/${fds[i]}`));
      } finally {
        close(fd);
      }
    });
  });
}

Deno.test("space that was reserved and not written is reserved again", async () => {
  using place = new Place("/tmp");
  const fd = place.open("file", O.RDWR | O.CREAT);
  const FALLOC_FL_KEEP_SIZE = 1n;
  syscall("fallocate", BigInt(fd), 0n, 0n, 1n << 20n);
  syscall("fallocate", BigInt(fd), FALLOC_FL_KEEP_SIZE, 4n << 20n, 1n << 20n);
  pwrite(fd, new Uint8Array(4096).fill(1), 8192n);
  Deno.removeSync(`${place.path}/file`);
  const unwritten = unwrittenSegments(fd, 1 << 20, 2n << 20n);
  if (unwritten.length === 0) return; // this file system does not tell
  const image = await save(place, [fd]);
  using made = await make(image);
  const handle = made.byFile.get(image.ids[0])!.fd;
  const again = open(`/proc/self/fd/${handle}`, O.RDONLY);
  const sum = (fd: number) =>
    unwrittenSegments(fd, 1 << 20, 2n << 20n).reduce(
      (sum, { length }) => sum + length,
      0,
    );
  assertEquals([stat(again).size, sum(again)], [1n << 20n, sum(fd)]);
  close(again);
});

Deno.test("flags that open(2) keeps only for a name or a new file are those of the very descriptor", async () => {
  using place = new Place("/tmp");
  const careful = place.open("file", O.RDWR | O.CREAT | O.NOFOLLOW);
  const plain = place.open("file", O.RDONLY);
  const nameless = place.open("", O.RDWR | O.TMPFILE);
  Deno.removeSync(`${place.path}/file`);
  const image = await save(place, [careful, plain, nameless]);
  using made = await make(image);
  const [a, b, c] = image.ids.map((id) => made.byFile.get(id)!);
  assertEquals([a, b, c].map(({ reopen }) => reopen), [false, true, false]);
  const flags = (fd: number) => syscall("fcntl", BigInt(fd), 3n);
  assertEquals(flags(a.fd), flags(careful));
  assertEquals(flags(c.fd), flags(nameless));
  assertEquals(stat(a.fd).ino, stat(b.fd).ino);
  assertEquals(place.names(), []);
  // It can still get a name, as before.
  linkTo(`/proc/self/fd/${c.fd}`, `${place.path}/named`);
  assertEquals(place.names(), ["named"]);
});

Deno.test("attributes come back: owner, mode, times, extended attributes, flags of the inode", async () => {
  using place = new Place("/tmp");
  const fd = place.open("file", O.RDWR | O.CREAT);
  Deno.removeSync(`${place.path}/file`);
  const FS_NODUMP_FL = 0x40;
  const wanted = {
    uid: 12,
    gid: 34,
    mode: 0o106755,
    accessed: { seconds: 12345n, nanoseconds: 678901234 },
    modified: { seconds: -5n, nanoseconds: 999_999_999 },
    xattrs: [
      { name: "user.empty", value: new Uint8Array(0) },
      { name: "user.some", value: new Uint8Array([0, 1, 255]) },
    ],
    inodeFlags: FS_NODUMP_FL,
  };
  const at = `/proc/self/fd/${fd}`;
  setAttributes(fd, "making a file", wanted);
  const image = await save(place, [fd]);
  using made = await make(image);
  const again = `/proc/self/fd/${made.byFile.get(image.ids[0])!.fd}`;
  for (const path of [at, again]) {
    const { uid, gid, mode } = stat(path);
    const { accessed, modified } = statx(path);
    const own = open(path, O.RDONLY | O.NOATIME);
    const inodeFlags = readInodeFlags(own);
    close(own);
    const xattrs = readXattrs(path).toSorted((a, b) =>
      a.name < b.name ? -1 : 1
    );
    assertEquals(
      { uid, gid, mode, accessed, modified, xattrs, inodeFlags },
      wanted,
      path,
    );
  }
});

Deno.test("where another file has the name, it stays as it is", async () => {
  using place = new Place("/tmp");
  const fd = place.open("file", O.RDWR | O.CREAT);
  Deno.removeSync(`${place.path}/file`);
  const image = await save(place, [fd]);
  Deno.writeTextFileSync(`${place.path}/file`, "of another");
  using made = await make(image);
  const { fd: handle } = made.byFile.get(image.ids[0])!;
  assertEquals(
    Deno.readLinkSync(`/proc/self/fd/${handle}`),
    `${place.path}/file.ckpt-ghost.1 (deleted)`,
  );
  assertEquals(place.names(), ["file"]);
  assertEquals(Deno.readTextFileSync(`${place.path}/file`), "of another");
});

Deno.test("where another thing has the name of a directory, the nearest one above takes its place", async () => {
  using place = new Place("/tmp");
  Deno.mkdirSync(`${place.path}/one/two`, { recursive: true });
  const fd = place.open("one/two/file", O.RDWR | O.CREAT);
  Deno.removeSync(`${place.path}/one`, { recursive: true });
  const image = await save(place, [fd]);
  const happenings = [
    () => Deno.writeTextFileSync(`${place.path}/one`, "a file"),
    () => Deno.symlinkSync("/", `${place.path}/one`),
  ];
  for (const happen of happenings) {
    happen();
    using made = await make(image);
    const { fd: handle } = made.byFile.get(image.ids[0])!;
    assertEquals(
      Deno.readLinkSync(`/proc/self/fd/${handle}`),
      `${place.path}/file (deleted)`,
    );
    assertEquals(place.names(), ["one"]);
    Deno.removeSync(`${place.path}/one`);
  }
});

/** An image as CRIU writes it: nothing of ours beside it. */
function criuImage(
  place: Place,
  entry: ghost_file_entry,
  content: Uint8Array<ArrayBuffer>,
  type: remap_type | undefined,
): { set: ImageSet; files: Map<number, file_entry>; id: number } {
  const image = minimalImage();
  const file = image.files.find(({ reg }) => reg !== undefined)!;
  file.reg!.name = `${place.path}/not/there/file`;
  Deno.mkdirSync(place.images);
  writeWithoutManifest(place.images, image);
  const head = encodeImage("ghost-file", entry);
  Deno.writeFileSync(
    `${place.images}/ghost-file-a.img`,
    new Uint8Array([...head, ...content]),
  );
  const remap_id = type === undefined ? 0x8000000a : 10;
  Deno.writeFileSync(
    `${place.images}/remap-fpath.img`,
    encodeImage("remap-fpath", [{
      orig_id: file.id,
      remap_id,
      remap_type: type,
    }]) as Uint8Array<ArrayBuffer>,
  );
  return {
    set: readImageSet(place.images),
    files: new Map(image.files.map((entry) => [entry.id, entry])),
    id: file.id,
  };
}

for (const type of [undefined, remap_type.GHOST]) {
  Deno.test(`a ghost of CRIU's, remap_type ${type}, is made in a directory that is gone`, async () => {
    using place = new Place("/tmp");
    const image = await criuImage(
      place,
      {
        uid: 7,
        gid: 8,
        mode: 0o104755,
        atim: { tv_sec: 5n, tv_usec: 6n },
        mtim: { tv_sec: BigInt.asUintN(64, -1n), tv_usec: 999_999n },
      },
      new TextEncoder().encode("content"),
      type,
    );
    using made = await make(image);
    const at = `/proc/self/fd/${made.byFile.get(image.id)!.fd}`;
    assertEquals(Deno.readTextFileSync(at), "content");
    const { mode, uid, gid, nlink } = stat(at);
    assertEquals([mode, uid, gid, nlink], [0o104755, 7, 8, 0n]);
    assertEquals(statx(at).modified, {
      seconds: -1n,
      nanoseconds: 999_999_000,
    });
    assertEquals(
      Deno.readLinkSync(at),
      `${place.path}/not/there/file (deleted)`,
    );
    assertEquals(place.names(), []);
  });
}

Deno.test("what cannot be made is told by its path, and nothing of it is left", async () => {
  using place = new Place("/tmp");
  const image = await criuImage(
    place,
    { uid: 7, gid: 8, mode: 0o170000 },
    new Uint8Array(0),
    remap_type.GHOST,
  );
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  const error = await assertRejects(() => make(image), CkptError);
  assertEquals(error.reasons[0].object, `file ${place.path}/not/there/file`);
  assertEquals(place.names(), []);
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});
