/**
 * What is in the pipes and fifos of a tree: read while it stands still, and
 * described later, as pipes-data.img, fifo-data.img and ckpt-pipes.img.
 */
import { O } from "../ffi/syscall.ts";
import type { Description, SeenPipe } from "../files/descriptors.ts";
import type { FileTable } from "../files/file_table.ts";
import { pipeKey } from "../files/outside_holders.ts";
import {
  DEFAULT_PIPE_SIZE,
  type PipeContent,
  PipeReader,
} from "../files/pipe_contents.ts";
import { type PipeAccess, ROOT_ALONE } from "../files/pipe_images.ts";
import type { Feature } from "../image/features.ts";
import type { Entry } from "../image/kinds.ts";
import type { ckpt_pipe_entry } from "../image/schema.gen.ts";

const PERMISSIONS = 0o7777;

/** By the key of the pipe. */
export type PipeContents = ReadonlyMap<string, PipeContent>;

/**
 * Reads what is in each pipe; nothing is taken out.
 *
 * @param external as given by --external: what belongs to the outside
 * @throws CkptError naming the pipe that cannot be saved
 */
export function readPipes(
  pipes: readonly SeenPipe[],
  external: readonly string[],
): PipeContents {
  using reader = new PipeReader();
  const own = pipes.filter(({ link }) =>
    !external.includes(link) && !external.includes(link.replace(":", ""))
  );
  const contents = reader.readAll(own);
  return new Map(own.map(({ key }, i) => [key, contents[i]]));
}

/** The number of a pipe or fifo in the image. */
export function pipeId(table: FileTable, description: Description): number {
  return table.pipeId(pipeKey(description), description.status.ino);
}

export interface DescribedPipes {
  readonly pipes: Entry<"pipes-data">[];
  readonly fifos: Entry<"fifo-data">[];
  readonly extensions: ckpt_pipe_entry[];
  readonly features: ReadonlySet<Feature>;
}

/**
 * @param descriptions of all processes, as often as they are held
 * @param table the one in which they have their entries
 */
export function describePipes(
  descriptions: Iterable<Description>,
  contents: PipeContents,
  table: FileTable,
): DescribedPipes {
  const described: DescribedPipes & { features: Set<Feature> } = {
    pipes: [],
    fifos: [],
    extensions: [],
    features: new Set(),
  };
  for (const [key, ends] of byPipe(descriptions)) {
    const [{ kind }] = ends;
    const pipe_id = pipeId(table, ends[0]);
    if (kind === "external pipe") {
      described.extensions.push({
        pipe_id,
        packets: [],
        external: true,
        unconnected: [],
      });
      continue;
    }
    const { size, bytes, packets } = contents.get(key)!;
    if (bytes.length > 0 || size !== DEFAULT_PIPE_SIZE) {
      const entries = kind === "fifo" ? described.fifos : described.pipes;
      entries.push({ pipe_id, bytes: bytes.length, size, extra: bytes });
    }
    if (packets !== undefined) described.features.add("ckpt:packets");
    const unconnected = ends.some(canWrite)
      ? []
      : ends.filter(({ unconnected }) => unconnected)
        .map((end) => table.idOf(end));
    const access = kind === "pipe" ? accessOf(ends[0]) : undefined;
    if (packets !== undefined || unconnected.length > 0 || access) {
      described.extensions.push({
        pipe_id,
        packets: [...packets ?? []],
        unconnected,
        ...access,
      });
    }
  }
  return described;
}

/** The descriptions of pipes and fifos, each once, by the keys of these. */
function byPipe(
  descriptions: Iterable<Description>,
): ReadonlyMap<string, Description[]> {
  const pipes = [...new Set(descriptions)].filter(({ kind }) =>
    kind === "pipe" || kind === "fifo" || kind === "external pipe"
  );
  return Map.groupBy(pipes, pipeKey);
}

/** Undefined for what a pipe has anyway when root makes it. */
function accessOf({ status }: Description): PipeAccess | undefined {
  const { uid, gid } = status;
  const mode = status.mode & PERMISSIONS;
  const usual = uid === ROOT_ALONE.uid && gid === ROOT_ALONE.gid &&
    mode === ROOT_ALONE.mode;
  return usual ? undefined : { uid, gid, mode };
}

function canWrite({ flags }: Description): boolean {
  return (flags & O.ACCMODE) !== O.RDONLY;
}
