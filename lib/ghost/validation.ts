/**
 * Whether a file of this host is the one that a program was dumped with. Pure:
 * what was recorded of it is compared with what is there.
 */
import { deviceNumbers } from "../ffi/syscall.ts";
import type { ckpt_file_entry, reg_file_entry } from "../image/schema.gen.ts";
import { formatBuildId } from "./build_id.ts";

/**
 * What can be compared:
 *
 * - filesize: size, type, permissions, and the numbers of devices;
 * - buildid: the build-id of programs and libraries, or, of those that have
 *   none, a checksum of their beginning;
 * - mtime: when it was modified;
 * - checksum: the whole content of programs and libraries.
 */
export const VALIDATION_METHODS = [
  "filesize",
  "buildid",
  "mtime",
  "checksum",
] as const;

export type ValidationMethod = typeof VALIDATION_METHODS[number];

/** Bytes that are enough to tell one version of a program from another. */
export const BEGINNING = 1 << 20;

/** What was recorded of a file; what is missing is not compared. */
export interface RecordedFile {
  readonly entry: Pick<reg_file_entry, "mode" | "size" | "build_id">;
  readonly extension?: ckpt_file_entry | undefined;
}

/** What is there now, asked only for what was recorded. */
export interface FoundFile {
  readonly mode: number;
  readonly size: bigint;
  /** st_rdev of stat(2). */
  readonly device: bigint;
  /** Packed as in reg_file_entry; empty where it has none. */
  buildId(): readonly number[];
  /** Nanoseconds since 1970. */
  modified(): bigint;
  /** Of as many bytes as were recorded, once it is known to be so long. */
  digest(bytes: number): Promise<Uint8Array>;
}

/** What a file differs in, and what to do about it. */
export interface Difference {
  readonly why: string;
  readonly remedy: string;
}

const PUT_BACK = "put back the one of the dump, or";
const TAKE_ANY = "give --file-validation none to take this one";

function deviceText(device: bigint): string {
  const { major, minor } = deviceNumbers(device);
  return `${major}:${minor}`;
}

/**
 * @param methods those to be compared, where recorded
 * @returns the first difference
 */
export async function findDifference(
  { entry, extension }: RecordedFile,
  found: FoundFile,
  methods: ReadonlySet<ValidationMethod>,
): Promise<Difference | undefined> {
  const differs = (why: string, remedy = TAKE_ANY) => ({
    why,
    remedy: `${PUT_BACK} ${remedy}`,
  });
  if (methods.has("filesize")) {
    if (entry.mode !== undefined && found.mode !== entry.mode) {
      return differs(
        `its mode is ${found.mode.toString(8)}, it was ${
          entry.mode.toString(8)
        }`,
      );
    }
    const device = extension?.device;
    if (device !== undefined && found.device !== device) {
      return differs(
        `it is the device ${deviceText(found.device)}, it was ${
          deviceText(device)
        }`,
      );
    }
    if (entry.size !== undefined && found.size !== entry.size) {
      return differs(
        `its size is ${found.size}, it was ${entry.size}: the file has ` +
          "changed since the dump",
      );
    }
  }
  if (methods.has("buildid") && entry.build_id.length > 0) {
    const id = found.buildId();
    if (!equal(id, entry.build_id)) {
      return differs(
        `its build-id is ${
          id.length === 0 ? "missing" : formatBuildId(id)
        }, it was ${formatBuildId(entry.build_id)}: it is another version`,
        "give --file-validation filesize to take this one",
      );
    }
  }
  const { modified_s, modified_ns = 0, digest, digest_bytes } = extension ?? {};
  if (methods.has("mtime") && modified_s !== undefined) {
    const recorded = nanoseconds(modified_s, modified_ns);
    const modified = found.modified();
    if (modified !== recorded) {
      return differs(
        `it was modified ${formatTime(modified)}, and when it was dumped ${
          formatTime(recorded)
        }`,
        "give --file-validation buildid to leave times out",
      );
    }
  }
  if (digest !== undefined && digest_bytes !== undefined) {
    const whole = entry.size === undefined || digest_bytes >= entry.size;
    const standsForId = methods.has("buildid") && entry.build_id.length === 0;
    if (!methods.has("checksum") && !standsForId) return undefined;
    const now = await found.digest(Number(digest_bytes));
    if (!equal(now, digest)) {
      return differs(
        `the checksum of its ${
          whole ? "content" : `first ${digest_bytes} bytes`
        } is ${now.toHex()}, it was ${digest.toHex()}`,
        "give --file-validation filesize to take this one",
      );
    }
  }
  return undefined;
}

/** stat(2) gives seconds before 1970 as negative numbers. */
export function nanoseconds(seconds: bigint, rest: number): bigint {
  return BigInt.asIntN(64, seconds) * 1_000_000_000n + BigInt(rest);
}

/** "2026-11-20 17:04:04.000000001 UTC" */
function formatTime(time: bigint): string {
  const second = 1_000_000_000n;
  const rest = BigInt.asUintN(64, (time % second + second) % second);
  const date = new Date(Number((time - rest) / 1_000_000n));
  if (Number.isNaN(date.getTime())) return `${time} ns after 1970`;
  const [day, hours] = date.toISOString().split("T");
  return `${day} ${hours.slice(0, 8)}.${`${rest}`.padStart(9, "0")} UTC`;
}

function equal(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): boolean {
  return a.length === b.length &&
    Array.from({ length: a.length }, (_, i) => a[i] === b[i]).every(Boolean);
}

/**
 * @param methods asked for
 * @param recorded all files of an image
 * @returns those that this image knows nothing for
 */
export function unrecordedMethods(
  methods: readonly ValidationMethod[],
  recorded: Iterable<RecordedFile>,
): ValidationMethod[] {
  const unknown = new Set(methods.filter((method) => method !== "filesize"));
  for (const { entry, extension } of recorded) {
    if (unknown.size === 0) break;
    if (entry.build_id.length > 0 || extension?.digest !== undefined) {
      unknown.delete("buildid");
    }
    if (extension?.modified_s !== undefined) unknown.delete("mtime");
    if (
      extension?.digest !== undefined &&
      (extension.digest_bytes ?? 0n) >= (entry.size ?? 0n)
    ) unknown.delete("checksum");
  }
  return [...unknown];
}
