/**
 * `/proc/PID/mountinfo` (proc_pid_mountinfo(5); show_mountinfo in
 * fs/proc_namespace.c).
 */
import { unescapeOctal } from "./escape.ts";
import { lines } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimal } from "./numbers.ts";

export interface MountInfo {
  readonly mountId: number;
  /** The mount's own id when it is the root of the namespace's tree. */
  readonly parentId: number;
  readonly major: number;
  readonly minor: number;
  /**
   * Directory in the filesystem that is the root of this mount. Ends in
   * "//deleted" when it was removed. Not always a path: `net:[4026531840]`
   * for a mounted namespace.
   */
  readonly root: string;
  /** Relative to the root directory of the process. */
  readonly mountPoint: string;
  /** Per-mount options: "rw", "nosuid", ... */
  readonly mountOptions: readonly string[];
  /** Peer group the mount belongs to. */
  readonly shared: number | undefined;
  /** Peer group that it receives from. */
  readonly master: number | undefined;
  /** Nearest dominating group under the root of the process. */
  readonly propagateFrom: number | undefined;
  readonly unbindable: boolean;
  /** Optional fields that are not known, as they are. */
  readonly otherTags: readonly string[];
  /** With a subtype after a dot: "fuse.sshfs". */
  readonly type: string;
  /** May be "". */
  readonly source: string;
  /**
   * Per-superblock options, each unescaped after the split at the commas (a
   * comma within a value is escaped). A filesystem's own escapes remain, such
   * as the `\,` in the layers of overlayfs.
   */
  readonly superOptions: readonly string[];
}

/** Parses the whole of mountinfo, in the kernel's order. */
export function parseMountInfo(
  text: string,
  source = "mountinfo",
): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const place of lines(text, source)) mounts.push(parseLine(place));
  return mounts;
}

const FIELDS_BEFORE_TAGS = 6;

function parseLine(place: Place): MountInfo {
  // Split at every single space: the source may be empty.
  const fields = place.text.split(" ");
  const separator = fields.indexOf("-", FIELDS_BEFORE_TAGS);
  if (separator < 0 || fields.length < separator + 4) {
    throw malformed(
      place,
      "expected six fields, tags, a dash, type, source and options",
    );
  }
  const [mountId, parentId, device, root, mountPoint, mountOptions] = fields;
  const colon = device.indexOf(":");
  if (colon < 0) throw malformed(place, "expected a device as MAJOR:MINOR");

  let shared: number | undefined;
  let master: number | undefined;
  let propagateFrom: number | undefined;
  let unbindable = false;
  const otherTags: string[] = [];
  for (const tag of fields.slice(FIELDS_BEFORE_TAGS, separator)) {
    if (tag.startsWith("shared:")) {
      shared = decimal(tag.slice(7), place);
    } else if (tag.startsWith("master:")) {
      master = decimal(tag.slice(7), place);
    } else if (tag.startsWith("propagate_from:")) {
      propagateFrom = decimal(tag.slice(15), place);
    } else if (tag === "unbindable") {
      unbindable = true;
    } else {
      otherTags.push(tag);
    }
  }

  return {
    mountId: decimal(mountId, place),
    parentId: decimal(parentId, place),
    major: decimal(device.slice(0, colon), place),
    minor: decimal(device.slice(colon + 1), place),
    root: unescapeOctal(root),
    mountPoint: unescapeOctal(mountPoint),
    mountOptions: mountOptions.split(","),
    shared,
    master,
    propagateFrom,
    unbindable,
    otherTags,
    type: unescapeOctal(fields[separator + 1]),
    source: unescapeOctal(fields[separator + 2]),
    // Some filesystems write spaces here without escaping them.
    superOptions: fields.slice(separator + 3).join(" ").split(",")
      .map(unescapeOctal),
  };
}
