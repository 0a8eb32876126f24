/** Reads from the images where the rings of asynchronous I/O were. */
import { CkptError, EXIT } from "../error.ts";
import { close, O, open, pread } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  parseRing,
  ringAreas,
  ringProblem,
  type RingState,
} from "../mm/aio.ts";
import { storedPages } from "../mm/stored_pages.ts";
import { pagesPath, type TaskImages } from "./task_images.ts";

const HEADER_BYTES = 32;

/**
 * @returns by their addresses
 * @throws CkptError naming what is no ring
 */
export function readRings(
  { set, pid, mm, pagemap }: Pick<TaskImages, "set" | "pid" | "mm" | "pagemap">,
): ReadonlyMap<bigint, RingState> {
  const states = new Map<bigint, RingState>();
  const stored = storedPages(pagemap.entries);
  const fd = open(encodeText(pagesPath(set, pagemap)), O.RDONLY);
  try {
    for (const area of ringAreas(mm)) {
      const { start, end } = area;
      const place = stored.find((range) =>
        range.start <= start && end <= range.end
      );
      const header = new Uint8Array(HEADER_BYTES);
      const offset = place === undefined
        ? 0n
        : place.offset + start - place.start;
      if (place !== undefined) pread(fd, header, offset);
      const state = parseRing(header, offset);
      const why = ringProblem(area, state);
      if (why !== undefined) {
        throw new CkptError(EXIT.image, `restoring from ${set.directory}`, [{
          object: `mm-${pid}.img, area ${start.toString(16)}`,
          why,
        }]);
      }
      states.set(start, state);
    }
    return states;
  } finally {
    close(fd);
  }
}
