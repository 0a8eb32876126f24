/** What the images tell of pipes and fifos beside their descriptors. */
import type { ImageSet } from "../image/image_set.ts";
import type { Entry } from "../image/kinds.ts";
import type { ckpt_pipe_entry } from "../image/schema.gen.ts";

export interface PipeImage {
  /** F_SETPIPE_SZ, bytes; undefined: the kernel's default. */
  readonly size: number | undefined;
  /** Written, but not yet read. */
  readonly bytes: Uint8Array;
  /** Lengths of the packets (O_DIRECT) that the bytes are; none: a stream. */
  readonly packets: readonly number[];
  /** Of a pipe; undefined: root alone may open it anew. */
  readonly access: PipeAccess | undefined;
}

/** Owner and permissions, as chown(2) and chmod(2) set them. */
export interface PipeAccess {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

/** What pipe(2) gives a pipe that root makes. */
export const ROOT_ALONE: PipeAccess = { uid: 0, gid: 0, mode: 0o600 };

/** By their numbers in the images. */
export interface PipeImages {
  readonly pipes: ReadonlyMap<number, PipeImage>;
  readonly fifos: ReadonlyMap<number, PipeImage>;
  /** Ids of readers of fifos that no writer has opened since. */
  readonly unconnected: ReadonlySet<number>;
  /** Pipes that lead outside. */
  readonly external: ReadonlySet<number>;
}

/** @param set validated */
export function readPipeImages(set: ImageSet): PipeImages {
  const extensions = new Map(
    (set.read("ckpt-pipes", undefined) ?? []).map((one) => [one.pipe_id, one]),
  );
  const read = (kind: "pipes-data" | "fifo-data") => {
    const data = new Map(
      (set.read(kind, undefined) ?? []).map((one) => [one.pipe_id, one]),
    );
    const ids = new Set([...data.keys(), ...extensions.keys()]);
    return new Map(
      [...ids].map((id) => [id, pipeImage(data.get(id), extensions.get(id))]),
    );
  };
  const all = [...extensions.values()];
  return {
    pipes: read("pipes-data"),
    fifos: read("fifo-data"),
    unconnected: new Set(
      all.flatMap(({ unconnected }) => unconnected),
    ),
    external: new Set(
      all.filter(({ external }) => external)
        .map(({ pipe_id }) => pipe_id),
    ),
  };
}

function pipeImage(
  data: Entry<"pipes-data"> | undefined,
  extension: ckpt_pipe_entry | undefined,
): PipeImage {
  const { uid = 0, gid = 0, mode } = extension ?? {};
  return {
    size: data?.size,
    bytes: data?.extra ?? new Uint8Array(0),
    packets: extension?.packets ?? [],
    access: mode === undefined ? undefined : { uid, gid, mode },
  };
}
