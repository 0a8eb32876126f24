/** Mounts as entries of mountpoints-N.img and ckpt-mounts-N.img, both ways. */
import {
  ckpt_layer_entry_roles,
  type ckpt_mount_entry,
  fstype,
  type mnt_entry,
} from "../image/schema.gen.ts";
import { AUTOMATIC_KEY, DEVICE_KEY } from "./external.ts";
import { typeName, typeNumber } from "./file_system_types.ts";
import { MS } from "./mount.ts";
import type { LayerRole } from "./overlay_layers.ts";
import type { PlannedMount } from "./plan_dump.ts";
import type { ImageMount, NamespaceImage } from "./image_mounts.ts";

export interface MountEntries {
  readonly mounts: mnt_entry[];
  readonly extensions: ckpt_mount_entry[];
}

/**
 * @param mounts of one namespace, in the order that mountinfo showed; they are
 * written the other way round, as CRIU does
 */
export function describeMounts(
  mounts: readonly PlannedMount[],
): MountEntries {
  return {
    mounts: mounts.filter(({ mount }) => !mount.detached).map(describe)
      .reverse(),
    extensions: mounts.flatMap(describeFurther).reverse(),
  };
}

function describe({ mount, origin }: PlannedMount): mnt_entry {
  const { type, options } = mount;
  const external = origin.kind === "device";
  const number = external ? fstype.AUTO : typeNumber(type);
  return {
    fstype: number,
    mnt_id: mount.id,
    root_dev: mount.device,
    parent_mnt_id: mount.parent,
    flags: mount.flags,
    root: mount.root,
    mountpoint: mount.point,
    source: external
      ? `dev[${origin.name}]`
      : origin.kind === "automatic"
      ? origin.path
      : mount.source,
    options: [...options, ...type === "devpts" ? [NEW_INSTANCE] : []].join(","),
    shared_id: mount.shared,
    master_id: mount.master,
    fsname: number === fstype.AUTO ? type : undefined,
    deleted: mount.deleted || undefined,
    sb_flags: mount.superFlags,
    ext_key: origin.kind === "named"
      ? origin.name
      : origin.kind === "automatic"
      ? AUTOMATIC_KEY
      : external
      ? DEVICE_KEY
      : undefined,
  };
}

/** What CRIU adds to the options of devpts. */
const NEW_INSTANCE = "newinstance";

function describeFurther(planned: PlannedMount): ckpt_mount_entry[] {
  const { mount, origin, hostPath, peerPath, masterPath, removed } = planned;
  const layers = origin.kind !== "overlay"
    ? []
    : origin.layers.map(({ role, mount, path, handle, isTrusted }) => ({
      role: ckpt_layer_entry_roles[role],
      mnt_id: mount,
      path,
      handle: handle?.bytes,
      handle_type: handle?.type,
      trusted: isTrusted,
    }));
  const entry = {
    mnt_id: mount.id,
    type: typeNumber(mount.type) === fstype.UNSUPPORTED
      ? mount.type
      : undefined,
    host_path: hostPath,
    peer_path: peerPath,
    master_path: masterPath,
    removed,
    detached: mount.detached ? describe(planned) : undefined,
  };
  const says = Object.values(entry).filter((value) => value !== undefined);
  return says.length > 1 || layers.length > 0 ? [{ ...entry, layers }] : [];
}

/** Flags that images of before sb_flags have for both. */
const SUPER_FLAGS = MS.SYNCHRONOUS | MS.MANDLOCK | MS.DIRSYNC | MS.LAZYTIME;

/** @param entries validated */
export function readMounts(
  number: number,
  entries: readonly mnt_entry[],
  extensions: readonly ckpt_mount_entry[],
): NamespaceImage {
  const further = new Map(extensions.map((entry) => [entry.mnt_id, entry]));
  return {
    number,
    mounts: entries.map((entry) =>
      readMount(number, entry, further.get(entry.mnt_id))
    ).reverse(),
    detached: extensions.flatMap(({ detached }) =>
      detached === undefined
        ? []
        : [{ ...readMount(number, detached, undefined), detached: true }]
    ),
  };
}

function readMount(
  namespace: number,
  entry: mnt_entry,
  further: ckpt_mount_entry | undefined,
): ImageMount {
  const { flags, sb_flags, shared_id = 0, master_id = 0 } = entry;
  return {
    id: entry.mnt_id,
    namespace,
    parent: entry.parent_mnt_id,
    device: entry.root_dev,
    root: entry.root,
    deleted: entry.deleted ?? false,
    point: entry.mountpoint,
    flags: sb_flags === undefined ? flags & ~SUPER_FLAGS : flags,
    superFlags: sb_flags ?? flags & (SUPER_FLAGS | MS.RDONLY),
    type: entry.fsname ?? further?.type ?? typeName(entry.fstype) ?? "unknown",
    source: entry.source,
    options: splitOptions(entry.options),
    shared: shared_id,
    master: master_id,
    external: externalOf(entry),
    hostPath: further?.host_path,
    peerPath: further?.peer_path,
    masterPath: further?.master_path,
    removed: further?.removed,
    layers: (further?.layers ?? []).map((layer) => ({
      role: ROLES[layer.role],
      mount: layer.mnt_id,
      path: layer.path,
      handle: layer.handle && {
        type: layer.handle_type ?? 0,
        bytes: layer.handle,
      },
    })),
  };
}

const ROLES = Object.fromEntries(
  Object.entries(ckpt_layer_entry_roles).map((
    [name, number],
  ) => [number, name]),
) as Record<number, LayerRole>;

/** At commas that are not escaped, as overlay writes them. */
function splitOptions(text: string): string[] {
  return text === "" ? [] : text.split(/(?<!\\),/);
}

function externalOf(
  { ext_key, ext_mount, root, source }: mnt_entry,
): ImageMount["external"] {
  switch (ext_key) {
    case undefined:
      return ext_mount ? { kind: "named", name: root } : undefined;
    case AUTOMATIC_KEY:
      return { kind: "automatic", path: source };
    case DEVICE_KEY:
      return {
        kind: "device",
        name: /^dev\[(.*)\]$/s.exec(source)?.[1] ?? source,
      };
    default:
      return { kind: "named", name: ext_key };
  }
}
