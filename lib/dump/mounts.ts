/** Mount namespaces of a tree's own, in a dump: looked at, saved, described. */
import { close } from "../ffi/syscall.ts";
import type { Feature } from "../image/features.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import type { file_entry } from "../image/schema.gen.ts";
import { describeMount } from "../mnt/mount.ts";
import type { MountTree } from "../mnt/mount_tree.ts";
import type { MountsPlan } from "../mnt/plan_dump.ts";
import type { SeenNamespaces, TreeNamespaces } from "../mnt/tree_namespaces.ts";
import type { Report } from "../report.ts";
import { anyPacketRings } from "../files/sockets.ts";
import type { DumpOptions } from "./options.ts";
import type { SurveyOptions } from "./survey.ts";
import { surveyRunning, type TreeSurvey } from "./survey_tree.ts";

/** What looks at mount namespaces: loaded when the first is met. */
export class LazyMounts implements Disposable {
  #namespaces: TreeNamespaces | undefined;

  constructor(
    readonly options: Pick<DumpOptions, "overlayTrustOptions">,
  ) {}

  get namespaces(): TreeNamespaces | undefined {
    return this.#namespaces;
  }

  async load(): Promise<void> {
    const { TreeNamespaces } = await import("../mnt/tree_namespaces.ts");
    this.#namespaces = new TreeNamespaces(this.options.overlayTrustOptions);
  }

  [Symbol.dispose](): void {
    this.#namespaces?.[Symbol.dispose]();
  }
}

/**
 * {@link surveyRunning}, once more where there are mount namespaces; with what
 * few programs have.
 */
export async function surveyWithMounts(
  pid: number,
  options: Omit<SurveyOptions, "root">,
  mounts: LazyMounts,
): Promise<TreeSurvey | undefined> {
  let survey = surveyRunning(pid, options);
  if (
    survey === undefined ||
    survey.processes.some(({ hasOtherMounts }) => hasOtherMounts)
  ) {
    await mounts.load();
    survey = surveyRunning(pid, options, mounts.namespaces);
  }
  const hasRings = survey?.processes.some(({ descriptors: { descriptors } }) =>
    descriptors.some(({ description: { kind } }) => kind === "io_uring")
  );
  if (survey === undefined) return survey;
  const { processes } = survey.seen;
  const reasons = [...survey.reasons];
  if (hasRings) {
    const { ringReasons } = await import("../files/io_uring.ts");
    reasons.push(...ringReasons(processes));
  }
  if (anyPacketRings(processes)) {
    const { packetRingReasons } = await import("../files/packet_rings.ts");
    reasons.push(...packetRingReasons(processes));
  }
  return { ...survey, reasons };
}

/** Overlays whose layers nothing but their options tells. */
export function warnOfTrust(
  mounts: MountsPlan | undefined,
  report: Report,
): void {
  for (const { mount, origin } of mounts?.mounts ?? []) {
    if (origin.kind !== "overlay") continue;
    if (!origin.layers.some(({ isTrusted }) => isTrusted)) continue;
    report.log(
      2,
      `${describeMount(mount)}: its layers are taken for those that its ` +
        "options name (--overlay-trust-options)",
    );
  }
}

/** Saves what is in the file systems of the image; the tree stands still. */
export async function saveSuperblocks(
  namespaces: SeenNamespaces | undefined,
  external: readonly string[],
  writer: ImageWriter,
): Promise<void> {
  if (namespaces === undefined || namespaces.all.length === 0) return;
  const { superblocks, reasons } = namespaces.plan(external);
  // Told by the judge.
  if (reasons.length > 0) return;
  const { contentName, saveContent, saveContentOfFiles } = await import(
    "../mnt/content.ts"
  );
  const saved = new Set(superblocks.flatMap(({ mounts }) => mounts));
  for (const { mount, removed } of namespaces.plan(external).mounts) {
    if (removed === mount.id) saved.add(mount);
  }
  for (const mount of saved) {
    const files = namespaces.filesOf(mount);
    if (files !== undefined) {
      saveContentOfFiles(mount, files, writer.createRaw(contentName(mount)));
      continue;
    }
    const root = namespaces.cloneBare(mount);
    try {
      saveContent(mount, root, writer.createRaw(contentName(mount)));
    } finally {
      close(root);
    }
  }
}

/** Loads what writes them; undefined: there are none of the tree's own. */
export async function loadMountWriter(
  mounts: MountsPlan | undefined,
): Promise<MountWriter | undefined> {
  if (mounts === undefined || mounts.mounts.length === 0) return undefined;
  const { describeMounts } = await import("../mnt/images.ts");
  const { MountTree } = await import("../mnt/mount_tree.ts");
  return (writer, features, files) => {
    const namespaces = Map.groupBy(
      mounts.mounts,
      ({ mount: { namespace } }) => namespace,
    );
    for (const [number, planned] of namespaces) {
      const { mounts, extensions } = describeMounts(planned);
      writer.write("mountpoints", number, mounts);
      if (extensions.length > 0) {
        writer.write("ckpt-mounts", number, extensions);
      }
    }
    if (mounts.mounts.some(({ origin }) => origin.kind === "overlay")) {
      features.add("ckpt:overlay");
    }
    if (mounts.mounts.some(({ peerPath }) => peerPath !== undefined)) {
      features.add("ckpt:host-peers");
    }
    if (mounts.mounts.some(({ removed }) => removed !== undefined)) {
      features.add("ckpt:removed-sources");
    }
    const trees = [...namespaces.values()].map((planned) =>
      new MountTree(
        planned.map(({ mount }) => mount).filter(({ detached }) => !detached),
      )
    );
    const isDetached = mounts.mounts.some(({ mount }) => mount.detached);
    if (isDetached || files.some((file) => isCovered(file, trees))) {
      features.add("ckpt:covered-files");
    }
  };
}

/** Writes the images of all mounts; `files` are the entries of files.img. */
export type MountWriter = (
  writer: ImageWriter,
  features: Set<Feature>,
  files: readonly file_entry[],
) => void;

/** Of such a file CRIU would open what is over it. */
function isCovered(
  { reg }: file_entry,
  trees: readonly MountTree[],
): boolean {
  const id = reg?.mnt_id;
  if (id === undefined) return false;
  const tree = trees.find(({ byId }) => byId.has(id));
  return tree !== undefined && tree.lookup(reg!.name)?.id !== id;
}
