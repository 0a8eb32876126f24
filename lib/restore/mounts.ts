/**
 * Mount namespaces of a tree's own, in a restore: planned from the images, made
 * before the tree, and entered by its processes.
 */
import type { Reason } from "../error.ts";
import { pathExists } from "../ffi/path_exists.ts";
import { AT_FDCWD, close, O, open, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { cloneMountAt } from "../ghost/names.ts";
import type { ImageSet } from "../image/image_set.ts";
import type { file_entry, reg_file_entry } from "../image/schema.gen.ts";
import { mountIdOf } from "../mnt/calls.ts";
import { contentName, restoreContent, restoreSource } from "../mnt/content.ts";
import { parseExternalMounts } from "../mnt/external.ts";
import { readMounts } from "../mnt/images.ts";
import { MadeNamespaces } from "../mnt/made_namespaces.ts";
import {
  describeMount,
  joinPath,
  type Mount,
  mountOf,
  relativePath,
} from "../mnt/mount.ts";
import { describeOperation } from "../mnt/operations.ts";
import { OwnNamespace } from "../mnt/own_namespace.ts";
import type {
  HostPlace,
  ImageMount,
  NamespaceImage,
} from "../mnt/image_mounts.ts";
import {
  planRestoreOfMounts,
  type RestoreMountsPlan,
} from "../mnt/plan_restore.ts";
import type { SocketRoot } from "../files/taken_addresses.ts";
import { readMountInfo } from "../proc/read.ts";
import type { FileRoot, MountServices } from "./mount_services.ts";
import type { RestoreOptions } from "./options.ts";
import type { TreeImages } from "./task_images.ts";

export class TreeMounts implements Disposable {
  readonly #plan: RestoreMountsPlan;
  readonly #namespaces: readonly NamespaceImage[];
  readonly #mounts: ReadonlyMap<number, ImageMount>;
  readonly #set: ImageSet;
  readonly #remaps: TreeImages["remaps"];
  readonly #own: readonly number[];
  #made: MadeNamespaces | undefined;
  #proc = -1;
  #outside = -1;
  #ownNamespace = -1;

  /** @param images of a tree that has mount namespaces of its own */
  constructor(
    { set, processes, files, remaps }: Pick<
      TreeImages,
      "set" | "processes" | "files" | "remaps"
    >,
    { root, external, overlayTrustOptions }: Pick<
      RestoreOptions,
      "root" | "external" | "overlayTrustOptions"
    >,
  ) {
    this.#set = set;
    this.#remaps = remaps;
    this.#own = processes.map(({ ids }) => ids.mnt_ns_id ?? 0);
    const numbers = new Set(this.#own);
    numbers.delete(set.inventory.root_ids?.mnt_ns_id ?? 0);
    this.#namespaces = [...numbers].map((number) =>
      readMounts(
        number,
        set.require("mountpoints", number),
        set.read("ckpt-mounts", number) ?? [],
      )
    );
    this.#mounts = new Map(
      this.#namespaces.flatMap((
        { mounts, detached = [] },
      ) => [...mounts, ...detached]).map((mount) => [mount.id, mount]),
    );
    const given = parseExternalMounts(external);
    const host = readMountInfo(Deno.pid).map((info) => mountOf(info, 0));
    const plan = planRestoreOfMounts({
      namespaces: this.#namespaces,
      root,
      mounts: given.mounts,
      devices: given.devices,
      automatic: given.automatic !== undefined,
      trustsOverlays: overlayTrustOptions,
      host,
      place: (path) => placeOf(path, host),
      files: [...files].flatMap(([id, { reg }]) =>
        reg?.mnt_id === undefined || reg.ext ? [] : [{
          id,
          name: reg.name,
          mount: reg.mnt_id,
          isNameless: remaps.has(id),
        }]
      ),
      hasContent: (device) =>
        this.#of(device).some((mount) =>
          pathExists(set.path(contentName(mount)))
        ),
    });
    this.#plan = { ...plan, reasons: [...given.reasons, ...plan.reasons] };
  }

  get reasons(): readonly Reason[] {
    return this.#plan.reasons;
  }

  /** What would be done, a line each. */
  get steps(): string[] {
    return [
      ...this.#namespaces.flatMap(({ number, mounts }) => [
        `namespace ${number}:`,
        ...mounts.map((mount) => `  ${describeMount(mount)}`),
      ]),
      ...this.#plan.operations.map(describeOperation),
    ];
  }

  /**
   * May be done anew, while no process is there.
   *
   * @throws CkptError; nothing is left then
   */
  async make(): Promise<void> {
    const { operations } = this.#plan;
    this[Symbol.dispose]();
    this.#made = await MadeNamespaces.make(
      operations,
      this.#namespaces.map(({ number }) => number),
      (number) => this.#describe(number),
      {
        fill: (device, root) =>
          restoreContent(
            root,
            this.#of(device),
            (name) => this.#set.path(name),
          ),
        fillSource: (number, directory) =>
          restoreSource(
            this.#mounts.get(number)!,
            directory,
            (name) => this.#set.path(name),
          ),
      },
    );
    this.#proc = open("/proc", O.PATH | O.DIRECTORY);
    this.#outside = open("/", O.PATH | O.DIRECTORY);
    this.#ownNamespace = open("/proc/self/ns/mnt", O.RDONLY);
  }

  #of(device: number): ImageMount[] {
    return [...this.#mounts.values()].filter((mount) =>
      mount.device === device
    );
  }

  /** Those that the planner adds are of no mount of the image alone. */
  #describe(number: number): string {
    const mount = this.#mounts.get(number);
    return mount === undefined
      ? `mount ${number} of the plan`
      : describeMount(mount);
  }

  get services(): MountServices {
    const made = this.#made!;
    return {
      proc: this.#proc,
      outside: this.#outside,
      own: this.#ownNamespace,
      namespaces: new Map(
        this.#namespaces.map(({ number }) => [number, made.get(number)]),
      ),
    };
  }

  /** The namespace that a file was opened in; undefined: the outside. */
  namespaceOf(
    { mnt_id }: Pick<reg_file_entry, "mnt_id">,
  ): number | undefined {
    return mnt_id === undefined
      ? undefined
      : this.#mounts.get(mnt_id)?.namespace;
  }

  /** Where the paths of a Unix socket begin that is on that mount. */
  rootOfSocket(mount: number | undefined): SocketRoot {
    const number = this.namespaceOf({ mnt_id: mount });
    if (number === undefined) return "own";
    return this.#made?.get(number).root ?? "planned";
  }

  /**
   * How ckpt gets at a file by its name; undefined while namespaces are only
   * planned.
   */
  wayTo(entry: reg_file_entry): string | undefined {
    const number = this.namespaceOf(entry);
    if (number === undefined) return entry.name;
    if (this.#made === undefined) return undefined;
    const { fd, rest } = this.#rootOf(entry, number);
    return `/proc/self/fd/${fd}${rest}`;
  }

  /** Copies the mount that a way of {@link wayTo} leads to. */
  readonly clone = (path: string): number => {
    const [, number, rest] = /^\/proc\/self\/fd\/(\d+)\/(.*)$/s.exec(path) ??
      [];
    const fd = Number(number);
    const namespace = this.#namespaceOfRoot.get(fd);
    if (namespace === undefined) return cloneMountAt(AT_FDCWD, path);
    using own = new OwnNamespace();
    return own.within(
      this.#made!.get(namespace).namespace,
      () => cloneMountAt(fd, rest),
    );
  };

  /** By descriptors that ways begin at. */
  readonly #namespaceOfRoot = new Map<number, number>();

  #rootOf(file: Pick<reg_file_entry, "id" | "name">, namespace: number) {
    const root = this.#wayFrom(file, namespace);
    this.#namespaceOfRoot.set(root.fd, namespace);
    return root;
  }

  #wayFrom(
    { id, name }: Pick<reg_file_entry, "id" | "name">,
    namespace: number,
  ): FileRoot {
    const made = this.#made!;
    const opened = made.opened.get(id);
    if (opened === undefined) {
      return { fd: made.get(namespace).root, rest: `/.${name}` };
    }
    const { fd, missing } = opened;
    const directory = missing === "" ? "" : `/${missing}`;
    return {
      fd,
      rest: this.#remaps.has(id)
        ? `/.${directory}${name.slice(name.lastIndexOf("/"))}`
        : directory,
    };
  }

  /**
   * From where files are opened, by the ids of these. None where all processes,
   * and so all of their paths, are in one namespace.
   */
  rootsOf(files: Iterable<file_entry>): ReadonlyMap<number, FileRoot> {
    const roots = new Map<number, FileRoot>();
    const [only, ...others] = new Set(this.#own);
    for (const { reg } of files) {
      if (reg === undefined || reg.ext || this.#remaps.has(reg.id)) continue;
      const number = this.namespaceOf(reg);
      if (
        others.length === 0 && number === only &&
        !this.#made!.opened.has(reg.id)
      ) continue;
      roots.set(
        reg.id,
        number === undefined
          ? { fd: this.#outside, rest: reg.name }
          : this.#rootOf(reg, number),
      );
    }
    return roots;
  }

  [Symbol.dispose](): void {
    this.#made?.[Symbol.dispose]();
    this.#made = undefined;
    for (const fd of [this.#proc, this.#outside, this.#ownNamespace]) {
      if (fd >= 0) close(fd);
    }
    this.#proc = this.#outside = this.#ownNamespace = -1;
  }
}

function placeOf(path: string, host: readonly Mount[]): HostPlace | undefined {
  let fd: number;
  try {
    fd = open(encodeText(path), O.PATH);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  try {
    const mount = host.find(({ id }) => id === mountIdOf(fd));
    if (mount === undefined) return undefined;
    // As the kernel knows it, without symbolic links.
    const real = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    return {
      path,
      mount,
      root: joinPath(mount.root, relativePath(real, mount.point)),
    };
  } finally {
    close(fd);
  }
}
