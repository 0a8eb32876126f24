/** The programs by which an agent gets the memory of its process. */
import { type Data, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { reg_file_entry } from "../image/schema.gen.ts";
import type { AddressRange } from "../mm/hole.ts";
import { inheritMemory } from "../mm/inherit.ts";
import { inheritedRanges } from "../mm/inherited_pages.ts";
import { restoreMemoryMap } from "../mm/memory_map.ts";
import {
  fill,
  mapMemory,
  pagesToFill,
  rebuildMemory,
  settleMemory,
  unmapAllBut,
} from "../mm/rebuild.ts";
import { bytesIn, halve, type StoredRange } from "../mm/stored_pages.ts";
import type { ServiceNumbers } from "./services.ts";
import { regularFile, type TaskImages } from "./task_images.ts";

/** How a process gets its memory. */
export interface MemoryPrograms {
  /** All of it; where `halves` are given, all that comes before these. */
  readonly first: Program;
  /** So much that ckpt fills a part of it, while the agent fills the rest. */
  readonly halves?: {
    readonly own: Program;
    readonly beside: readonly StoredRange[];
    /** When both are done. */
    readonly last: Program;
  };
}

/** What others may have the like of. */
export interface OwnMemoryPrograms extends MemoryPrograms {
  /** Where the name of the page image is, in the first. */
  readonly pagesName: Data;
  readonly images: TaskImages;
  readonly parent: TaskImages | undefined;
}

/** From here on a second processor is worth two more stops: 8 MiB. */
const WORTH_HALVING = 8n << 20n;

/** Whether programs, with another page image, make the memory of `images`. */
export function makeTheSame(
  made: OwnMemoryPrograms,
  images: TaskImages,
  parent: TaskImages | undefined,
): boolean {
  const [a, b] = [made.images, images].map(({ mm, pagemap, extension }) => ({
    mm,
    pages: pagemap.entries,
    areas: extension.areas,
    inherited: extension.inherited,
    lockFuture: extension.lock_future,
  }));
  return made.parent === parent && isAlike(a, b);
}

/** Whether two messages, or parts of them, hold the same. */
function isAlike(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => isAlike(a[key], b[key]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

const LONGEST_PAGES_NAME = 32;

/**
 * The memory of a process and its program file, which can be set only when the
 * agent's own is no longer mapped. The name of its page image is to be set.
 *
 * @param parent whose memory, complete, the process got by fork and is to share
 * as far as it is the same; undefined: it gets all its memory anew
 */
export function memoryProgram(
  images: TaskImages,
  numbers: ServiceNumbers,
  agent: AddressRange,
  parent: TaskImages | undefined,
): OwnMemoryPrograms {
  const program = new Program();
  let last = program;
  let halves: MemoryPrograms["halves"];
  const { mm, pagemap, extension } = images;
  const name = program.reserve(LONGEST_PAGES_NAME);
  const opening = "opening the page image";
  const opened = program.call(
    "openat",
    [
      numbers.of(numbers.services.images),
      name,
      O.RDONLY | O.CLOEXEC,
      0,
    ],
    opening,
  );
  program.call("dup3", [opened, numbers.pages, O.CLOEXEC], opening);
  program.call("close", [opened], opening);
  const input = {
    mm,
    files: mappableFiles(images),
    sources: numbers.madePaths,
    pages: pagemap.entries,
    pagesFd: numbers.pages,
    shared: new Map(
      [...numbers.services.shared].map(([id, fd]) => [id, numbers.of(fd)]),
    ),
    segments: images.segments,
    extensions: areaExtensions(images),
    agent,
  };
  if (parent === undefined) {
    unmapAllBut(program, agent);
    // Before anything of the program file is mapped: a process that was forked
    // has it already, and it cannot be changed while it is mapped.
    const exe = regularFile(images, mm.exe_file_id);
    const exeFd = program.call(
      "openat",
      [
        AT_FDCWD,
        program.text(encodeText(input.sources.get(exe.id) ?? exe.name)),
        O.RDONLY | O.CLOEXEC,
        0,
      ],
      `opening the program file ${exe.name}`,
    );
    restoreMemoryMap(program, mm, exeFd);
    program.call("close", [exeFd], "closing the program file");
    const pages = pagesToFill(input);
    if (bytesIn(pages) < WORTH_HALVING) rebuildMemory(program, input);
    else {
      mapMemory(program, input);
      const [own, beside] = halve(pages);
      halves = { own: new Program(), beside, last: new Program() };
      fill(halves.own, own, input);
      last = halves.last;
      settleMemory(last, input);
    }
  } else {
    inheritMemory(program, {
      ...input,
      parent: {
        mm: parent.mm,
        pages: parent.pagemap.entries,
        extensions: areaExtensions(parent),
      },
      inherited: inheritedRanges(extension.inherited),
    });
    restoreMemoryMap(program, mm, SAME_PROGRAM_FILE);
  }
  if (extension.lock_future !== undefined) {
    last.call(
      "mlockall",
      [extension.lock_future],
      "locking areas to come in memory",
    );
  }
  return { first: program, halves, pagesName: name, images, parent };
}

/** For prctl_mm_map.exe_fd: nothing changes. */
const SAME_PROGRAM_FILE = -1;

export function areaExtensions({ extension }: TaskImages) {
  return new Map(extension.areas.map((area) => [area.start, area]));
}

/** What is mapped by a path, or by a descriptor in the stead of one. */
export function mappableFiles(
  { files }: TaskImages,
): Pick<ReadonlyMap<number, reg_file_entry>, "get"> {
  return {
    get(id) {
      const { reg, memfd } = files.get(id) ?? {};
      if (reg !== undefined || memfd === undefined) return reg;
      const { flags, pos, fown } = memfd;
      return { id, flags, pos, fown, name: "a memfd", build_id: [] };
    },
  };
}
