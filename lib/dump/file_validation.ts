/**
 * Records what a restore compares files with. Size and permissions are in
 * their entries anyway; build-ids cost two system calls for each library.
 */
import {
  close,
  type FileStatus,
  O,
  open,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { packBuildId, readBuildId } from "../ghost/build_id.ts";
import { isDevice } from "../files/devices.ts";
import { isSameFile, statx } from "../ghost/calls.ts";
import { BEGINNING, type ValidationMethod } from "../ghost/validation.ts";
import type { ckpt_file_entry, file_entry } from "../image/schema.gen.ts";
import { type DependedFile, isKept } from "./depended_files.ts";

export const DEFAULT_METHODS: readonly ValidationMethod[] = ["buildid"];

/** When files were modified, by their paths. */
export type FileTimes = ReadonlyMap<
  string,
  Pick<ckpt_file_entry, "modified_s" | "modified_ns">
>;

export const NO_TIMES: FileTimes = new Map();

/** To be asked while the tree stands still. */
export function readFileTimes(files: readonly DependedFile[]): FileTimes {
  return new Map(
    files.filter(({ content, at }) => content && isKept(at)).map(
      ({ path, at }) => {
        const { modified: { seconds, nanoseconds } } = statx(at);
        return [path, {
          modified_s: BigInt.asUintN(64, seconds),
          modified_ns: nanoseconds,
        }];
      },
    ),
  );
}

/**
 * Completes the entries of programs and libraries, and tells the numbers of
 * devices.
 *
 * @param entries of files.img
 * @param remapped ids of those that are not found by their paths
 * @returns what CRIU's entries have no field for
 */
export async function recordValidation(
  entries: readonly file_entry[],
  remapped: ReadonlySet<number>,
  files: readonly DependedFile[],
  methods: readonly ValidationMethod[],
  times: FileTimes,
): Promise<ckpt_file_entry[]> {
  const executed = new Map<string, Recorded>();
  const devices = new Map<string, bigint>();
  for (const file of files) {
    const { executed: wanted, path, status: { mode, rdev } } = file;
    if (isDevice(file.status)) devices.set(path, rdev);
    if (!wanted || (mode & S_IF.MT) !== S_IF.REG) continue;
    const recorded = await recordExecuted(file, methods);
    if (recorded !== undefined) executed.set(path, recorded);
  }
  const extensions: ckpt_file_entry[] = [];
  for (const { id, reg } of entries) {
    if (reg === undefined || remapped.has(id)) continue;
    const device = devices.get(reg.name);
    if (device !== undefined) extensions.push({ id, watched: [], device });
    // Without a size, its content does not matter.
    if (reg.size === undefined) continue;
    const recorded = executed.get(reg.name);
    if (recorded !== undefined) reg.build_id = recorded.buildId;
    const extension = { ...times.get(reg.name), ...recorded?.digest };
    if (Object.keys(extension).length > 0) {
      extensions.push({ id, watched: [], ...extension });
    }
  }
  return extensions;
}

interface Recorded {
  readonly buildId: number[];
  readonly digest?: Pick<ckpt_file_entry, "digest" | "digest_bytes">;
}

async function recordExecuted(
  { at, status }: DependedFile,
  methods: readonly ValidationMethod[],
): Promise<Recorded | undefined> {
  const fd = openIfSame(at, status);
  if (fd === undefined) return undefined;
  try {
    const id = methods.includes("buildid") ? readBuildId(fd) : undefined;
    const buildId = id === undefined ? [] : packBuildId(id);
    const whole = methods.includes("checksum");
    if (!whole && (id !== undefined || !methods.includes("buildid"))) {
      return { buildId };
    }
    const { digestContent } = await import("../ghost/content_digest.ts");
    const { digest, bytes } = await digestContent(
      fd,
      whole ? Infinity : BEGINNING,
    );
    return { buildId, digest: { digest, digest_bytes: BigInt(bytes) } };
  } finally {
    close(fd);
  }
}

/** @returns undefined where another file is there by now, or none */
function openIfSame(path: string, status: FileStatus): number | undefined {
  let fd: number;
  try {
    fd = open(encodeText(path), O.RDONLY | O.NONBLOCK);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  if (isSameFile(stat(fd), status)) return fd;
  close(fd);
  return undefined;
}
