import { assertEquals } from "@std/assert";
import { CkptError } from "../error.ts";
import { close, O, open } from "../ffi/syscall.ts";
import { ArchiveWriter } from "./archive.ts";
import { restoreTree } from "./restore_tree.ts";
import { saveTree } from "./save_tree.ts";

/** Two directories of a tmpfs, and a place for the archive. */
class Trees implements Disposable {
  readonly #base = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "ckpt-" });
  readonly from = `${this.#base}/from`;
  readonly to = `${this.#base}/to`;
  readonly image = `${this.#base}/image`;

  constructor() {
    Deno.mkdirSync(this.from);
    Deno.mkdirSync(this.to);
  }

  save(): void {
    const root = open(this.from, O.RDONLY | O.DIRECTORY);
    const fd = open(this.image, O.RDWR | O.CREAT | O.TRUNC, 0o600);
    saveTree(root, new ArchiveWriter(fd));
    close(fd);
    close(root);
  }

  async restore(): Promise<void> {
    const root = open(this.to, O.PATH | O.DIRECTORY);
    const fd = open(this.image, O.RDONLY);
    try {
      const target = { root, what: "the tree", image: "image" };
      await restoreTree(fd, this.image, target);
    } finally {
      close(fd);
      close(root);
    }
  }

  [Symbol.dispose](): void {
    run("chattr", "-R", "-i", this.#base);
    Deno.removeSync(this.#base, { recursive: true });
  }
}

function run(command: string, ...args: string[]): string {
  const { stdout } = new Deno.Command(command, {
    args,
    stdin: "null",
    stderr: "null",
  }).outputSync();
  return new TextDecoder().decode(stdout);
}

function python(script: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command("/usr/bin/python3", {
    args: ["-c", script, ...args],
    stdin: "null",
    stderr: "piped",
  }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** All that can be seen of a tree, a line for each name, in the order it has. */
function picture(root: string, options: string[] = []): string[] {
  return python(PICTURE, root, ...options).trimEnd().split("\n");
}

/** Options: what is left out. */
const PICTURE = `
import fcntl, hashlib, json, os, stat, sys
os.chdir(sys.argv[1])
groups = {}
def content(name):
    digest, segments, at = hashlib.sha256(), [], 0
    with open(name, "rb") as file:
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return [digest.hexdigest(), segments]
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            segments.append([at, end])
            digest.update(os.pread(file.fileno(), end - at, at))
            at = end
def flags(name):
    file = os.open(name, os.O_RDONLY)
    try:
        return fcntl.ioctl(file, 0x80086601, bytes(8)).hex()
    finally:
        os.close(file)
def look(name):
    info = os.lstat(name)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFSOCK and "sockets" in sys.argv:
        return
    first = groups.setdefault(info.st_ino, name)
    line = [repr(name), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_rdev, info.st_mtime_ns]
    if kind != stat.S_IFDIR:
        line += [info.st_size, info.st_blocks]
    if "links" not in sys.argv:
        line.append(repr(first))
    if kind == stat.S_IFLNK:
        line.append(repr(os.readlink(name)))
    if kind == stat.S_IFREG:
        line.append(content(name))
    if kind in (stat.S_IFREG, stat.S_IFDIR) and "flags" not in sys.argv:
        line.append(flags(name))
    if "xattrs" not in sys.argv:
        for key in sorted(os.listxattr(name, follow_symlinks=False)):
            line.append([key, os.getxattr(name, key, follow_symlinks=False).hex()])
    print(json.dumps(line))
    if kind == stat.S_IFDIR:
        for below in os.listdir(name):
            look(name + b"/" + below)
look(b".")
`;

const EVERYTHING = `
import os, socket, stat, sys, subprocess
os.chdir(sys.argv[1])
os.umask(0)
def write(name, content, mode=0o640, at=0, size=None):
    with open(name, "wb") as file:
        file.seek(at)
        file.write(content)
        if size is not None:
            file.truncate(size)
    os.chmod(name, mode)
write("plain", b"text\\n" * 1000)
write("empty", b"", 0o4755)
write("large", os.urandom(300001))
write("holes", b"x" * 5000, at=10 << 20, size=(40 << 20) + 7)
write("hole", b"", size=1 << 33)
with open("many", "wb") as file:
    for i in range(100):
        file.seek(i * 12288)
        file.write(bytes([i + 1]) * 4096)
os.mkdir("directory", 0o2711)
os.mkdir("directory/below", 0o1777)
write("directory/below/x", b"x")
os.chown("directory/below/x", 12345, 3000000)
os.link("plain", "directory/second")
os.symlink("../nowhere/at all", "symbolic")
os.link("symbolic", "directory/symbolic", follow_symlinks=False)
os.mkfifo("fifo", 0o621)
os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
for name in "socket", "directory/socket":
    one = socket.socket(socket.AF_UNIX)
    one.bind(name)
    os.chmod(name, 0o751)
os.link("socket", "directory/socket 2")
long = "directory/" + "a" * 200 + "/" + "b" * 200
os.makedirs(long)
write(long + "/" + "c" * 250, b"deep")
os.symlink("d" * 3000, long + "/link")
write(b"not utf-8 \\xff\\xfe", b"bytes")
write("new\\nline = \\t", b"odd")
os.setxattr("plain", "user.name", b"value\\x00\\n=")
os.setxattr("plain", "trusted.empty", b"")
os.setxattr("directory", "user.big", b"z" * 20000)
acl = bytes([2,0,0,0, 1,0,6,0, 255,255,255,255, 2,0,7,0, 57,48,0,0, 4,0,5,0, 255,255,255,255, 16,0,7,0, 255,255,255,255, 32,0,0,0, 255,255,255,255])
os.setxattr("large", "system.posix_acl_access", acl)
os.setxattr("directory/below", "system.posix_acl_default", acl)
write("guarded", b"nobody changes this")
os.utime("plain", ns=(1, -1500000000))
os.utime("empty", ns=(1234567890123456789, 987654321987654321))
os.utime("symbolic", ns=(5, 6), follow_symlinks=False)
os.utime("directory", ns=(7, 8))
os.utime(".", ns=(9, 1000000001))
subprocess.run(["chattr", "+i", "guarded"], check=True)
`;

Deno.test("a tree comes back with every kind of file and all attributes", async () => {
  using trees = new Trees();
  python(EVERYTHING, trees.from);
  const before = picture(trees.from);
  trees.save();
  assertEquals(picture(trees.from), before);
  await trees.restore();
  assertEquals(picture(trees.to), before);
});

Deno.test("tar(1) reads what is written", () => {
  using trees = new Trees();
  python(EVERYTHING, trees.from);
  trees.save();
  const { success, stderr } = new Deno.Command("tar", {
    args: [
      "--extract",
      "--gzip",
      "--xattrs",
      "--xattrs-include=*",
      "--same-owner",
      "--preserve-permissions",
      "--directory",
      trees.to,
      "--file",
      trees.image,
    ],
    stderr: "piped",
  }).outputSync();
  const said = new TextDecoder().decode(stderr);
  assertEquals(success, true, said);
  assertEquals(
    picture(trees.to, ["sockets", "flags"]).sort(),
    picture(trees.from, ["sockets", "flags"]).sort(),
  );
});

Deno.test("what tar(1) writes is read", async () => {
  for (const format of ["gnu", "pax"]) {
    using trees = new Trees();
    python(EVERYTHING, trees.from);
    run("chattr", "-i", `${trees.from}/guarded`);
    // The old format has full seconds only.
    run(
      "find",
      trees.from,
      "-depth",
      "-exec",
      "touch",
      "-h",
      "-d",
      "@5",
      "{}",
      ";",
    );
    run(
      "bash",
      "-c",
      `tar --create --gzip --numeric-owner --sparse --one-file-system ` +
        `--format=${format} ${
          format === "pax" ? "--xattrs --xattrs-include='*'" : ""
        } ` +
        `--directory ${trees.from} --file ${trees.image} .`,
    );
    await trees.restore();
    // Which name of several comes first is tar's choice.
    const options = ["sockets", "links", ...format === "gnu" ? ["xattrs"] : []];
    assertEquals(
      picture(trees.to, options).sort(),
      picture(trees.from, options).sort(),
      format,
    );
  }
});

Deno.test("any damaged byte of a small archive is found", async () => {
  using trees = new Trees();
  Deno.writeTextFileSync(`${trees.from}/file`, "content");
  trees.save();
  const bytes = Deno.readFileSync(trees.image);
  let found = 0;
  for (let at = 40; at < bytes.length; at += 7) {
    const damaged = bytes.slice();
    damaged[at] ^= 1 << at % 8;
    Deno.writeFileSync(trees.image, damaged);
    Deno.removeSync(trees.to, { recursive: true });
    Deno.mkdirSync(trees.to);
    try {
      await trees.restore();
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      found++;
      continue;
    }
    throw new Error(`the bit of byte ${at} was not missed`);
  }
  assertEquals(found > 100, true);
  for (let length = 0; length < bytes.length; length += 97) {
    Deno.writeFileSync(trees.image, bytes.slice(0, length));
    Deno.removeSync(trees.to, { recursive: true });
    Deno.mkdirSync(trees.to);
    let error: unknown;
    try {
      await trees.restore();
    } catch (thrown) {
      error = thrown;
    }
    assertEquals(error instanceof CkptError, true, `${length}: ${error}`);
  }
});
