/** Makes a tree of files again from an archive. */
import { CkptError, EXIT } from "../error.ts";
import { describeErrno } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  S_IF,
  syscall,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  type Attributes,
  setAttributes,
  setLateFlags,
} from "../ghost/attributes.ts";
import { splitPath } from "../ghost/calls.ts";
import { ArchiveError, ArchiveReader } from "./archive.ts";
import { openBelow } from "./below.ts";
import { TarError, TarReader } from "./read_tar.ts";
import { type FileType, paddingAfter, type TreeEntry } from "./tar.ts";

/** What is made of an empty directory, which gets the attributes of the tree's root. */
export interface TreeTarget {
  /** O_PATH is enough. */
  readonly root: number;
  /** For errors: "the content of the tmpfs on /run". */
  readonly what: string;
  /** The name of the image the archive is in. */
  readonly image: string;
}

/**
 * Makes the tree of an archive, or the single file that it has in its stead.
 *
 * @param fd of the image, and
 * @param path by which it is opened once more where it is compressed
 * @throws CkptError naming the file of the tree, or the image that is damaged
 */
export async function restoreTree(
  fd: number,
  path: string,
  target: TreeTarget,
): Promise<{ isSingle: boolean }> {
  const { root, what, image } = target;
  const late: TreeEntry[] = [];
  let isSingle = true;
  try {
    using archive = await ArchiveReader.open(fd, path);
    const reader = new TarReader(archive);
    let made = 0;
    for (
      let entry = reader.next();
      entry !== undefined;
      entry = reader.next()
    ) {
      isSingle &&= entry.path !== ".";
      makeSockets(reader, made, target, late);
      makeEntry(archive, entry, target, late);
      made++;
    }
    makeSockets(reader, made, target, late);
    archive.finish();
  } catch (error) {
    if (!(error instanceof TarError || error instanceof ArchiveError)) {
      throw error;
    }
    throw new CkptError(EXIT.image, `restoring ${what}`, [{
      object: image,
      why: error.message,
    }], { cause: error });
  }
  // What is in a directory sets its times, and a default ACL what is in it.
  for (const entry of late.reverse()) {
    attempt(entry, what, () => {
      const fd = openBelow(root, entry.path, O.PATH);
      try {
        const attributes = attributesOf(entry);
        setAttributes(fd, nameOf(entry, what), attributes);
        setLateFlags(fd, nameOf(entry, what), attributes);
      } finally {
        close(fd);
      }
    });
  }
  return { isSingle };
}

function makeSockets(
  { sockets }: TarReader,
  made: number,
  target: TreeTarget,
  late: TreeEntry[],
): void {
  for (const { after, entry } of sockets) {
    if (after === made) makeEntry(undefined, entry, target, late);
  }
}

const MODES: Readonly<Record<FileType, number>> = {
  "file": S_IF.REG,
  "hard link": 0,
  "symbolic link": S_IF.LNK,
  "character device": S_IF.CHR,
  "block device": S_IF.BLK,
  "directory": S_IF.DIR,
  "fifo": S_IF.IFO,
  "socket": S_IF.SOCK,
};

/** @param late filled in: what gets its attributes when all is there */
function makeEntry(
  archive: ArchiveReader | undefined,
  entry: TreeEntry,
  { root, what }: TreeTarget,
  late: TreeEntry[],
): void {
  attempt(entry, what, () => {
    if (entry.type === "directory" || entry.flags !== 0) late.push(entry);
    if (entry.path === ".") return;
    const { directory, name } = splitPath(entry.path);
    const parent = openBelow(root, directory, O.PATH | O.DIRECTORY);
    try {
      makeName(root, parent, name, entry);
      if (entry.type === "hard link" || entry.type === "directory") return;
      const fd = openBelow(
        parent,
        `./${name}`,
        entry.type === "file" ? O.WRONLY : O.PATH,
      );
      try {
        if (archive !== undefined && entry.type === "file") {
          fill(archive, entry, fd);
        }
        setAttributes(fd, nameOf(entry, what), {
          ...attributesOf(entry),
          inodeFlags: 0,
        });
      } finally {
        close(fd);
      }
    } finally {
      close(parent);
    }
  });
}

function makeName(
  root: number,
  parent: number,
  name: string,
  entry: TreeEntry,
): void {
  const path = terminated(encodeText(name));
  switch (entry.type) {
    case "directory":
      syscallBuffer1("mkdirat", BigInt(parent), path, 0o700n);
      break;
    case "symbolic link":
      symlink(entry.target, parent, path);
      break;
    case "hard link":
      link(root, entry.target, parent, path);
      break;
    default:
      syscallBuffer1(
        "mknodat",
        BigInt(parent),
        path,
        BigInt(MODES[entry.type] | 0o600),
        deviceOf(entry),
      );
  }
}

function symlink(
  target: string,
  parent: number,
  path: Uint8Array<ArrayBuffer>,
): void {
  const text = terminated(encodeText(target));
  syscall("symlinkat", addressOf(text), BigInt(parent), addressOf(path));
}

function link(
  root: number,
  target: string,
  parent: number,
  path: Uint8Array<ArrayBuffer>,
): void {
  const { directory, name } = splitPath(target);
  const from = openBelow(root, directory, O.PATH | O.DIRECTORY);
  try {
    syscallBuffer1(
      "linkat",
      BigInt(from),
      terminated(encodeText(name)),
      BigInt(parent),
      addressOf(path),
    );
  } finally {
    close(from);
  }
}

/** dev_t as mknod(2) takes it: new_encode_dev of linux/kdev_t.h. */
function deviceOf({ major, minor }: TreeEntry): bigint {
  return BigInt(minor & 0xff) | BigInt(major) << 8n |
    BigInt(minor >>> 8) << 20n;
}

function fill(archive: ArchiveReader, entry: TreeEntry, fd: number): void {
  syscall("ftruncate", BigInt(fd), BigInt(entry.size));
  let total = 0;
  for (const { offset, length } of entry.segments) {
    archive.takeToFile(fd, offset, length);
    total += length;
  }
  archive.take(paddingAfter(total));
}

function attributesOf(entry: TreeEntry): Attributes {
  return {
    uid: entry.uid,
    gid: entry.gid,
    mode: entry.mode | MODES[entry.type],
    accessed: entry.accessed,
    modified: entry.modified,
    xattrs: entry.xattrs.map(({ name, value }) => ({ name, value })),
    inodeFlags: entry.flags,
  };
}

function nameOf({ path }: TreeEntry, what: string): string {
  return `making ${path} in ${what}`;
}

function attempt(entry: TreeEntry, what: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, nameOf(entry, what), [{
      object: entry.path,
      why: describeErrno(error.errno),
    }], { cause: error });
  }
}
