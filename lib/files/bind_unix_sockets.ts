/**
 * Binds Unix sockets where they were: at a name, at a path that is gone, or
 * elsewhere, beside the file that they will be.
 */
import type { Data } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { splitPath } from "../ghost/calls.ts";
import type { Wanted } from "./make_descriptions.ts";
import { socketName, type UnixSocketImage } from "./socket_images.ts";
import { AF_UNIX } from "./socket_kind.ts";
import type { TableProgram } from "./table_program.ts";
import { namesOf, wayThrough } from "./unix_paths.ts";
import { isPath, pathOf } from "./unix_socket.ts";

/** A socket that is to be made, and where. */
export interface WantedUnix extends Wanted, UnixSocketImage {
  /** Name of a socket of the outside that it sends to. */
  readonly outside?: Uint8Array | undefined;
  /** A descriptor of the directory in which it is bound; see {@link isElsewhere}. */
  readonly place?: number | undefined;
}

const SIOCUNIXFILE = 0x89e0;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;
const OPEN_TO_ALL = 0o777;
const SLASH = 0x2f;

export class UnixBinder {
  readonly #table: TableProgram;
  /** Of the root directory, while another one is it. */
  #rootNumber: number | undefined;

  constructor(table: TableProgram) {
    this.#table = table;
  }

  /**
   * Where nothing but the directories of a path exists: a file system in memory
   * that is mounted nowhere, and is the root meanwhile. So a path that is soon
   * to be gone is the one it was, whatever is there now.
   */
  aside({ entry: { name, name_dir } }: WantedUnix, act: () => void): void {
    const table = this.#table;
    const { program } = table;
    const path = pathOf(name);
    const purpose = `making a place for ${path}`;
    program.call("fsopen", [program.text("tmpfs"), FSOPEN_CLOEXEC], purpose);
    const system = table.take();
    program.call(
      "fsconfig",
      [system, FSCONFIG_CMD_CREATE, 0, 0, 0],
      purpose,
    );
    program.call("fsmount", [system, FSMOUNT_CLOEXEC, 0], purpose);
    const mount = table.take();
    this.#withRoot(mount, purpose, () => {
      table.close(mount);
      table.close(system);
      const whole = path.startsWith("/") ? path : `${name_dir ?? ""}/${path}`;
      for (const directory of wayThrough(whole).directories) {
        program.call(
          "mkdirat",
          [AT_FDCWD, program.text(encodeText(directory)), OPEN_TO_ALL],
          purpose,
        );
      }
      act();
    });
  }

  /**
   * In a directory that has nothing but the way to the name it is bound to, and
   * from which its file goes to the directory above, where its names are.
   */
  elsewhere(one: WantedUnix, place: number, act: () => void): void {
    const { program } = this.#table;
    const path = pathOf(one.entry.name);
    this.#withRoot(place, `binding ${path} elsewhere`, act);
    const [first, ...others] = namesOf(one).map((other) => ({
      other,
      to: program.text(encodeText(`../${splitPath(other).name}`)),
    }));
    const from = program.text(encodeText(wayThrough(path).file));
    program.call(
      "renameat2",
      [place, from, place, first.to, 0],
      `naming the file of ${path} ${first.other}`,
    );
    for (const { other, to } of others) {
      this.#replace([place, to], [place, first.to], first.other, other);
    }
  }

  /** With another root directory for the moment, which is the current one. */
  #withRoot(directory: number, purpose: string, act: () => void): void {
    const table = this.#table;
    const { program } = table;
    program.call(
      "openat",
      [AT_FDCWD, program.text("/"), O.PATH | O.DIRECTORY | O.CLOEXEC, 0],
      "opening the root directory",
    );
    // Sockets that are made here get any of the lower numbers.
    const root = this.#rootNumber ??= table.temporary();
    table.settle(root, O.CLOEXEC);
    const goTo = (directory: number) => {
      program.call("fchdir", [directory], purpose);
      program.call("chroot", [program.text(".")], purpose);
    };
    goTo(directory);
    act();
    goTo(root);
    table.close(root);
  }

  /** The address of one, valid in the directory that is made the current. */
  address({ entry: { name } }: UnixSocketImage): readonly [Data, number] {
    return this.addressOf(name);
  }

  addressOf(name: Uint8Array): readonly [Data, number] {
    const bytes = new Uint8Array(2 + name.length);
    bytes[0] = AF_UNIX;
    bytes.set(name, 2);
    return [this.#table.program.bytes(bytes), bytes.length];
  }

  /** fchdir(2) to where the name of one begins. */
  #enter({ entry: { name, name_dir }, place }: WantedUnix): void {
    if (name_dir === undefined || !isPath(name) || name[0] === SLASH) return;
    if (place !== undefined) return;
    const table = this.#table;
    const { program } = table;
    program.call(
      "openat",
      [
        AT_FDCWD,
        program.text(encodeText(name_dir)),
        O.PATH | O.DIRECTORY | O.CLOEXEC,
        0,
      ],
      `opening the directory ${name_dir}`,
    );
    const fd = table.take();
    program.call("fchdir", [fd], `changing to the directory ${name_dir}`);
    table.close(fd);
  }

  bind(fd: number, one: WantedUnix): void {
    const { program } = this.#table;
    const { name } = one.entry;
    this.#enter(one);
    // A socket that nobody has, as was seen before.
    if (isPath(name)) this.unlink(one, true);
    program.call(
      "bind",
      [fd, ...this.address(one)],
      `binding ${isPath(name) ? pathOf(name) : socketName(one)}`,
    );
  }

  unlink({ entry: { name } }: WantedUnix, mayFail = false): void {
    const { program } = this.#table;
    const path = pathOf(name);
    program.call(
      "unlinkat",
      [AT_FDCWD, program.text(encodeText(path)), 0],
      `removing ${path}`,
      { mayFail },
    );
  }

  /** When all have connected: owner and mode of the file, or its end. */
  settleFile(one: WantedUnix): void {
    const { name, deleted } = one.entry;
    if (!isPath(name)) return;
    const { program } = this.#table;
    const { other_names } = one.extension;
    const path = pathOf(name);
    const place = program.text(encodeText(path));
    if (!deleted || other_names.length > 0) this.#settleAccess(one, place);
    if (one.place !== undefined) return;
    for (const other of other_names) {
      const to = program.text(encodeText(other));
      this.#replace([AT_FDCWD, to], [AT_FDCWD, place], path, other);
    }
    if (deleted) this.unlink(one);
  }

  /** Gives a file a name that its old one had, which nobody has any more. */
  #replace(
    to: readonly [number, Data],
    from: readonly [number, Data],
    path: string,
    other: string,
  ): void {
    const { program } = this.#table;
    program.call("unlinkat", [...to, 0], `removing ${other}`, {
      mayFail: true,
    });
    program.call(
      "linkat",
      [...from, ...to, 0],
      `linking ${path} as ${other}`,
    );
  }

  #settleAccess(
    { entry: { name, file_perms } }: WantedUnix,
    place: Data,
  ): void {
    if (file_perms !== undefined) {
      const { program } = this.#table;
      const path = pathOf(name);
      const { uid, gid, mode } = file_perms;
      program.call("lchown", [place, uid, gid], `setting the owner of ${path}`);
      program.call("chmod", [place, mode], `setting the mode of ${path}`);
    }
  }

  /** Finds an address of one, whose path may be gone. */
  reach(one: WantedUnix, use: (address: readonly [Data, number]) => void) {
    const { name, deleted } = one.entry;
    if (!isPath(name) || !deleted && one.place === undefined) {
      this.#enter(one);
      use(this.address(one));
      return;
    }
    const table = this.#table;
    table.program.call(
      "ioctl",
      [one.fd, SIOCUNIXFILE, 0],
      `finding the file of ${socketName(one)}`,
    );
    const file = table.take();
    use(this.addressOf(encodeText(`/proc/self/fd/${file}\0`)));
    table.close(file);
  }
}
