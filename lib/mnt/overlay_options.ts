/**
 * The layers of an overlay as its options name them (fs/overlayfs/params.c):
 * what was said when it was mounted, which nobody proves (see
 * overlay_layers.ts). Taken where the user trusts them.
 */
import { close, O, open, S_IF, stat, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { namesIn, statusAt } from "../ghost/calls.ts";
import { handleAt } from "../ghost/handles.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { openInRoot } from "../ghost/calls.ts";
import { mountIdOf } from "./calls.ts";
import { isWithin, relativePath } from "./mount.ts";
import {
  type Layer,
  type LayerRole,
  type Namespace,
  OUTSIDE,
} from "./overlay_layers.ts";

/** A layer by what an option says. */
export interface NamedLayer {
  readonly role: LayerRole;
  readonly path: string;
}

/**
 * In the order upper, work, lower from the top, data. Pure.
 *
 * @param options of the superblock; a comma in a path has a backslash before it
 */
export function layersNamed(options: readonly string[]): NamedLayer[] {
  const found: Record<LayerRole, string[]> = {
    upper: [],
    work: [],
    lower: [],
    data: [],
  };
  // They were split at every comma.
  for (const option of options.join(",").split(/(?<!\\),/)) {
    const equals = option.indexOf("=");
    const value = option.slice(equals + 1);
    switch (option.slice(0, Math.max(equals, 0))) {
      case "upperdir":
        found.upper = [unescape(value)];
        break;
      case "workdir":
        found.work = [unescape(value)];
        break;
      case "lowerdir": {
        // A second colon is before those of which only data are used.
        const [lower, ...data] = value.split(/(?<!\\)::/);
        found.lower = lower.split(/(?<!\\):/).map(unescape);
        found.data = data.map(unescape);
        break;
      }
      case "lowerdir+":
        found.lower.push(value);
        break;
      case "datadir+":
        found.data.push(value);
        break;
    }
  }
  return (Object.keys(found) as LayerRole[]).flatMap((role) =>
    found[role].map((path) => ({ role, path }))
  );
}

function unescape(text: string): string {
  return text.replaceAll(/\\(.)/g, "$1");
}

/**
 * Takes the layers for those that the options name: in the namespace of the
 * overlay, or in ckpt's own, whichever has all of them.
 *
 * @param root descriptor of the root of the overlay, with nothing mounted in it
 * @returns or why that cannot be
 */
export function trustLayers(
  root: number,
  options: readonly string[],
  namespace: Namespace,
  host: readonly MountInfo[],
): { readonly layers: readonly Layer[] } | { readonly why: string } {
  const named = layersNamed(options);
  for (const { role, path } of named) {
    if (path.startsWith("/")) continue;
    return {
      why: `its ${role} layer is named ${path}, and nobody knows from where`,
    };
  }
  if (!named.some(({ role }) => role === "lower")) {
    return { why: "its options name no layers" };
  }
  const own: Namespace = { mounts: host, prefix: "/" };
  let missing: NamedLayer | undefined;
  for (const place of [namespace, own]) {
    const found = named.map((layer) => findNamed(layer, place, place === own));
    const lost = found.indexOf(undefined);
    if (lost >= 0) {
      missing ??= named[lost];
      continue;
    }
    const layers = found.map((one) => one!);
    const other = differenceOf(
      root,
      layers.filter(({ layer: { role } }) =>
        role === "upper" || role === "lower"
      )
        .map(({ at }) => at),
    );
    if (other === undefined) {
      return { layers: layers.map(({ layer }) => layer) };
    }
    return {
      why: "its options name directories that are not its layers any more: " +
        `${JSON.stringify(other)} is in them or in it, and not in both`,
    };
  }
  return {
    why: `its options name ${missing!.path} as ${missing!.role} layer, and ` +
      "there is no such directory any more",
  };
}

interface FoundLayer {
  readonly layer: Layer;
  /** Where ckpt finds it. */
  readonly at: string;
}

function findNamed(
  { role, path }: NamedLayer,
  { mounts, prefix }: Namespace,
  isOutside: boolean,
): FoundLayer | undefined {
  let root: number | undefined;
  let fd: number | undefined;
  try {
    root = open(encodeText(prefix), O.PATH | O.DIRECTORY);
    fd = openInRoot(root, path);
    if ((stat(fd).mode & S_IF.MT) !== S_IF.DIR) return undefined;
    const id = mountIdOf(fd);
    const mount = mounts.find(({ mountId }) => mountId === id);
    // Without the links on the way.
    const real = Deno.readLinkSync(`/proc/self/fd/${fd}`);
    if (mount === undefined || !isWithin(real, mount.mountPoint)) {
      return undefined;
    }
    return {
      layer: {
        role,
        mount: isOutside ? OUTSIDE : id,
        path: isOutside ? real : relativePath(real, mount.mountPoint),
        handle: handleAt(`/proc/self/fd/${fd}/.`),
        isTrusted: true,
      },
      at: prefix === "/" ? real : prefix + real,
    };
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  } finally {
    if (root !== undefined) close(root);
    if (fd !== undefined) close(fd);
  }
}

/**
 * A name that is in an overlay and not in its layers, or the other way round;
 * undefined where the topmost directories agree.
 *
 * @param layers from the top
 */
function differenceOf(
  root: number,
  layers: readonly string[],
): string | undefined {
  const hidden = new Set<string>();
  const expected = new Set<string>();
  for (const layer of layers) {
    for (const { name } of namesIn(layer)) {
      if (hidden.has(name) || expected.has(name)) continue;
      (isWhiteout(`${layer}/${name}`) ? hidden : expected).add(name);
    }
  }
  const shown = new Set(
    namesIn(`/proc/self/fd/${root}/.`).map(({ name }) => name),
  );
  return [...shown.symmetricDifference(expected)][0];
}

/** What stands for a name that was removed: a device of number 0. */
function isWhiteout(path: string): boolean {
  const status = statusAt(path);
  return status !== undefined && (status.mode & S_IF.MT) === S_IF.CHR &&
    status.rdev === 0n;
}
