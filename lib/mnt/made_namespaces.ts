/**
 * Carries out what the planner of a restore says. Nothing of it is ever seen in
 * ckpt's own namespace: mounts are in none, or in namespaces that only ckpt
 * has, which go with their last descriptor.
 */
import { CkptError, EXIT } from "../error.ts";
import { EINVAL, ENOENT, ENOSYS, ENOTDIR, EXDEV } from "../ffi/errno.ts";
import {
  AT_FDCWD,
  close,
  O,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  attach,
  clonePart,
  clonePath,
  copyNamespace,
  createMount,
  duplicate,
  enterNamespace,
  makeDirectory,
  makeEmptyFile,
  makeSuperblockReadOnly,
  mountIdOf,
  openAt,
  openDirectoryWithin,
  openWithin,
  pivotInto,
  PROPAGATION,
  setAttributes,
  setGroup,
  setPropagation,
} from "./calls.ts";
import { isOneOf } from "../ghost/attributes.ts";
import { handleAt, isSameHandle } from "../ghost/handles.ts";
import { relativePath } from "./mount.ts";
import {
  describeOperation,
  type MadeLayer,
  type Operation,
  YARD,
} from "./operations.ts";
import type { LayerRole } from "./overlay_layers.ts";
import { OwnNamespace } from "./own_namespace.ts";
import { RemovedSources } from "./removed_sources.ts";

/** Fills a new superblock from the image, through a descriptor of its root. */
export type FillSuperblock = (
  device: number,
  root: number,
) => Promise<void>;

/** Fills an empty directory from the image, or with a single file of that name. */
export type FillSource = (
  mount: number,
  directory: string,
) => Promise<{ readonly isSingle: boolean }>;

/** What is done with content of the image. */
export interface ContentMakers {
  readonly fill: FillSuperblock;
  readonly fillSource: FillSource;
}

export interface MadeNamespace {
  /** Its nsfs file: for setns(2). */
  readonly namespace: number;
  /** O_PATH, of its root; something may be mounted on that. */
  readonly root: number;
}

/** What the operation "open" has opened, as an O_PATH descriptor. */
export interface OpenedPlace {
  readonly fd: number;
  /** What is not there of the path. */
  readonly missing: string;
}

/** Mount namespaces of ckpt's making, each with a tree of mounts. */
export class MadeNamespaces implements Disposable {
  readonly #made = new Map<number, MadeNamespace>();
  /** By the ids of files. */
  readonly opened = new Map<number, OpenedPlace>();

  /**
   * @param numbers of the namespaces to be made
   * @param describe says for errors which mount a number is
   * @throws CkptError; nothing is left then
   */
  static async make(
    operations: readonly Operation[],
    numbers: readonly number[],
    describe: (mount: number) => string,
    content: ContentMakers,
  ): Promise<MadeNamespaces> {
    const made = new MadeNamespaces();
    try {
      using builder = new Builder(numbers, describe, made.#made, made.opened);
      // What comes before the yard may wait for files; all else may not.
      let done = 0;
      for (; operations[done]?.kind !== "enter"; done++) {
        await builder.prepare(operations[done], content);
      }
      builder.build(operations.slice(done));
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  get(number: number): MadeNamespace {
    return this.#made.get(number)!;
  }

  [Symbol.dispose](): void {
    for (const { namespace, root } of this.#made.values()) {
      close(namespace);
      close(root);
    }
    this.#made.clear();
    for (const { fd } of this.opened.values()) close(fd);
    this.opened.clear();
  }
}

/** Options of overlayfs that take a descriptor (Linux 6.13). */
const LAYER_OPTIONS: Readonly<Record<LayerRole, string>> = {
  upper: "upperdir",
  work: "workdir",
  lower: "lowerdir+",
  data: "datadir+",
};
const NAMES_LAYER = /^(lowerdir\+?|upperdir|workdir|datadir\+)=/;

/** Newer kernels tell it as one of several ways to sync. */
const VOLATILE = ["volatile", "fsync=volatile"];

/**
 * An overlay that was mounted volatile leaves this directory, so that nobody
 * takes it for complete; ours is as complete as it was.
 */
function forgetVolatile(work: number): void {
  const path = `/proc/self/fd/${work}/work/incompat/volatile`;
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

const KEPT = "kept";
const TOP = "top";

class Builder implements Disposable {
  readonly #own = new OwnNamespace();
  readonly #mounts = new Map<number, number>();
  readonly #namespaces = new Map<number, number>();
  readonly #removed = new RemovedSources();
  /** The directory of the yard in which mounts are kept. */
  #kept: number | undefined;
  #entered: number | undefined;

  constructor(
    readonly numbers: readonly number[],
    readonly describe: (mount: number) => string,
    readonly made: Map<number, MadeNamespace>,
    readonly opened: Map<number, OpenedPlace>,
  ) {}

  /** What is done in ckpt's own namespace. */
  async prepare(
    operation: Operation,
    { fill, fillSource }: ContentMakers,
  ): Promise<void> {
    if (operation.kind === "fill") {
      await fill(operation.device, this.#fd(operation.mount));
    } else if (operation.kind === "remake") {
      const { mount, from, of, path, isOutside } = operation;
      // What is cloned from it gets its own flags.
      if (isOutside) setAttributes(this.#fd(from), 0);
      const made = await this.#removed.make(
        this.#fd(from),
        path,
        isOutside,
        (directory) => fillSource(of, directory),
      );
      this.#mounts.set(mount, made);
    } else this.#carryOut(operation);
  }

  /** All the rest, without a pause. */
  build(operations: readonly Operation[]): void {
    try {
      for (const operation of operations) this.#carryOut(operation);
    } finally {
      if (this.#entered !== undefined) this.#own.enter();
    }
  }

  #carryOut(operation: Operation): void {
    try {
      this.#step(operation);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const number = "mount" in operation ? operation.mount : undefined;
      throw new CkptError(
        EXIT.failed,
        `making the mounts: ${describeOperation(operation)}`,
        [{
          object: number === undefined
            ? "the mount namespace"
            : this.describe(number),
          why: error.message,
          remedy: remedyFor(operation, error),
        }],
        { cause: error },
      );
    }
  }

  #fd(mount: number): number {
    return this.#mounts.get(mount)!;
  }

  #step(operation: Operation): void {
    switch (operation.kind) {
      case "create": {
        const { mount, type, source, options, superFlags } = operation;
        this.#mounts.set(mount, createMount(type, source, options, superFlags));
        break;
      }
      case "overlay":
        this.#mounts.set(operation.mount, this.#createOverlay(operation));
        break;
      case "remove":
        this.#removed.remove();
        break;
      case "fill":
      case "remake":
        throw new Error("content is made before the yard is entered");
      case "seal":
        makeSuperblockReadOnly(this.#fd(operation.mount));
        break;
      case "clone": {
        const fd = clonePath(operation.path);
        this.#mounts.set(operation.mount, fd);
        // It is in the peer group of what it was cloned from.
        setPropagation(fd, PROPAGATION.private);
        break;
      }
      case "keep":
        this.#keep(operation.mount);
        break;
      case "bind":
        this.#mounts.set(
          operation.mount,
          clonePart(this.#fd(operation.from), operation.path),
        );
        break;
      case "open":
        this.#open(operation);
        break;
      case "attributes":
        setAttributes(this.#fd(operation.mount), operation.flags);
        break;
      case "enter":
        if (this.#entered === undefined) this.#makeYard();
        enterNamespace(this.#namespaces.get(operation.namespace)!);
        this.#entered = operation.namespace;
        break;
      case "attach":
        this.#attach(operation);
        break;
      case "pivot":
        pivotInto(this.#fd(operation.mount));
        this.made.set(this.#entered!, {
          namespace: this.#own.current(),
          root: openWithin(this.#fd(operation.mount), "."),
        });
        break;
      case "join":
        setGroup(this.#fd(operation.from), this.#fd(operation.mount));
        break;
      case "join host":
        setGroup(this.#hostMount(operation), this.#fd(operation.mount));
        break;
      case "slave":
        setPropagation(this.#fd(operation.mount), PROPAGATION.slave);
        break;
      case "share":
        setPropagation(this.#fd(operation.mount), PROPAGATION.shared);
        break;
      case "unbindable":
        setPropagation(this.#fd(operation.mount), PROPAGATION.unbindable);
        break;
      case "leave":
        this.#own.enter();
        this.#entered = undefined;
        break;
    }
  }

  #open({ file, mount, path }: Extract<Operation, { kind: "open" }>): void {
    const root = this.#fd(mount);
    for (let there = path;; there = there.slice(0, there.lastIndexOf("/"))) {
      try {
        const fd = there === "" ? duplicate(root) : openWithin(root, there);
        const missing = relativePath(`/${path}`, `/${there}`);
        this.opened.set(file, { fd, missing });
        return;
      } catch (error) {
        if (!isOneOf(error, ENOENT, ENOTDIR) || there === "") throw error;
      }
      if (!there.includes("/")) there = `/${there}`;
    }
  }

  #createOverlay(
    { of, source, options, superFlags, layers }: Extract<
      Operation,
      { kind: "overlay" }
    >,
  ): number {
    const directories: [string, number][] = [];
    try {
      for (const layer of layers) {
        const { role, from, path } = layer;
        const directory = openDirectoryWithin(this.#fd(from), path);
        directories.push([LAYER_OPTIONS[role], directory]);
        this.#recognise(layer, directory, of);
      }
      const work = layers.findIndex(({ role }) => role === "work");
      if (options.some((option) => VOLATILE.includes(option))) {
        forgetVolatile(directories[work][1]);
      }
      return createMount(
        "overlay",
        source,
        options.filter((option) => !NAMES_LAYER.test(option)),
        superFlags,
        directories,
      );
    } finally {
      for (const [, fd] of directories) close(fd);
    }
  }

  /** @throws CkptError where another directory is in the place of a layer */
  #recognise(
    { role, expected }: MadeLayer,
    directory: number,
    overlay: number,
  ): void {
    if (expected === undefined) return;
    const here = handleAt(`/proc/self/fd/${directory}/.`);
    if (here !== undefined && isSameHandle(here, expected.handle)) return;
    throw new CkptError(EXIT.refused, "making the mounts", [{
      object: this.describe(overlay),
      why: `its ${role} layer was another directory than the one that is ` +
        `${expected.path} now`,
      remedy: "put that back; or --overlay-trust-options, to take this one",
    }]);
  }

  readonly #hostMounts = new Map<number, number>();

  /** @throws SyscallError, EXDEV when another one is there by now */
  #hostMount(
    { host, path }: Extract<Operation, { kind: "join host" }>,
  ): number {
    const known = this.#hostMounts.get(host);
    if (known !== undefined) return known;
    const fd = openAt(this.#own.root, `.${path}`, O.PATH);
    this.#hostMounts.set(host, fd);
    if (mountIdOf(fd) !== host) throw new SyscallError("openat", EXDEV);
    return fd;
  }

  /** An empty namespace, and copies of it to become those of the tree. */
  #makeYard(): void {
    const yard = createMount("tmpfs", "ckpt", ["mode=700"], 0);
    this.#mounts.set(YARD, yard);
    copyNamespace();
    this.#entered = YARD;
    const root = openAt(AT_FDCWD, "/", O.PATH | O.DIRECTORY);
    try {
      setPropagation(root, PROPAGATION.private, true);
      attach(yard, root);
    } finally {
      close(root);
    }
    pivotInto(yard);
    makeDirectory(yard, TOP);
    makeDirectory(yard, KEPT);
    this.#kept = openAt(yard, KEPT, O.PATH | O.DIRECTORY);
    const own = this.#own.current();
    this.#namespaces.set(YARD, own);
    for (const number of this.numbers) {
      copyNamespace();
      this.#namespaces.set(number, this.#own.current());
      enterNamespace(own);
    }
  }

  #keep(mount: number): void {
    const fd = this.#fd(mount);
    const directory = this.#kept!;
    const name = `${mount}`;
    if ((stat(fd).mode & S_IF.MT) === S_IF.DIR) makeDirectory(directory, name);
    else makeEmptyFile(directory, name);
    const place = openWithin(directory, name);
    try {
      attach(fd, place);
    } finally {
      close(place);
    }
  }

  #attach({ mount, to, path }: Extract<Operation, { kind: "attach" }>): void {
    if (to !== undefined && path === "") {
      attach(this.#fd(mount), this.#fd(to));
      return;
    }
    const place = to === undefined
      ? openAt(AT_FDCWD, `/${TOP}`, O.PATH | O.DIRECTORY)
      : openWithin(this.#fd(to), path);
    try {
      attach(this.#fd(mount), place);
    } finally {
      close(place);
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#mounts.values()) close(fd);
    for (const fd of this.#namespaces.values()) close(fd);
    for (const fd of this.#hostMounts.values()) close(fd);
    if (this.#kept !== undefined) close(this.#kept);
    this.#removed[Symbol.dispose]();
    this.#own[Symbol.dispose]();
  }
}

function remedyFor(
  operation: Operation,
  { errno }: SyscallError,
): string | undefined {
  if (errno === ENOSYS) {
    return "ckpt makes mounts by fsopen(2), mount_setattr(2) and openat2(2): " +
      "Linux 5.15 or newer";
  }
  if (errno === EINVAL && operation.kind === "overlay") {
    return "layers are given to overlayfs as descriptors: Linux 6.13 or newer";
  }
  if (errno === EINVAL && operation.kind.startsWith("join")) {
    return "peer groups are set by MOVE_MOUNT_SET_GROUP: Linux 5.15 or newer";
  }
  return undefined;
}
