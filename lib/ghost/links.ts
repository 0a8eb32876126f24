/**
 * Links that a dump makes in the file systems of the program. Each is written
 * down in the directory of images before it is made, so that whatever happens
 * to ckpt, `ckpt clean` finds it.
 */
import { CkptError, EXIT } from "../error.ts";
import { EEXIST } from "../ffi/errno.ts";
import type { FileStatus } from "../ffi/syscall.ts";
import { isOneOf } from "./attributes.ts";
import {
  isSameFile,
  linkTo,
  nearestDirectory,
  statusAt,
  unlinkIfThere,
} from "./calls.ts";

import { linkName } from "./fate.ts";

export const LINKS_NAME = "ckpt-links.json";

/** A link and the file it was made for. */
export interface NotedLink {
  readonly path: string;
  readonly dev: string;
  readonly ino: string;
}

export class DumpLinks implements Disposable {
  readonly #before: readonly NotedLink[];
  readonly #own: NotedLink[] = [];
  #committed = false;

  /** @param directory of the images; it has to be there */
  constructor(readonly directory: string) {
    this.#before = readLinks(directory);
  }

  /**
   * Links the file that `at` leads to into the nearest directory above `path`.
   *
   * @returns the name it got
   * @throws SyscallError when the file system or its permissions refuse
   */
  add(at: string, path: string, { dev, ino }: FileStatus): string {
    const directory = nearestDirectory(path);
    const prefix = directory === "/" ? "/" : `${directory}/`;
    for (let number = 1;; number++) {
      const name = prefix + linkName(number);
      // One of another dump.
      if (statusAt(name) !== undefined) continue;
      this.#own.push({ path: name, dev: `${dev}`, ino: `${ino}` });
      writeLinks(this.directory, [...this.#before, ...this.#own]);
      try {
        linkTo(at, name);
        return name;
      } catch (error) {
        this.#own.pop();
        writeLinks(this.directory, [...this.#before, ...this.#own]);
        if (!isOneOf(error, EEXIST)) throw error;
      }
    }
  }

  /** The image is complete: links of the one it replaced go, its own stay. */
  commit(): void {
    this.#committed = true;
    for (const link of this.#before) removeLink(link);
    writeLinks(this.directory, this.#own);
  }

  [Symbol.dispose](): void {
    if (this.#committed || this.#own.length === 0) return;
    for (const link of this.#own) removeLink(link);
    writeLinks(this.directory, this.#before);
  }
}

/** What became of links that were to be removed. */
export interface Cleaned {
  readonly removed: string[];
  /** Gone before. */
  readonly missing: string[];
  /** Another file has the name now: it stays. */
  readonly replaced: string[];
}

/**
 * Removes the links that dumps into this directory have made.
 *
 * @throws CkptError naming the link that cannot be removed
 */
export function cleanLinks(directory: string): Cleaned {
  const cleaned: Cleaned = { removed: [], missing: [], replaced: [] };
  const links = readLinks(directory);
  for (const link of links) cleaned[removeLink(link)].push(link.path);
  writeLinks(directory, []);
  return cleaned;
}

function removeLink({ path, dev, ino }: NotedLink): keyof Cleaned {
  const found = statusAt(path);
  if (found === undefined) return "missing";
  if (!isSameFile(found, { dev: BigInt(dev), ino: BigInt(ino) })) {
    return "replaced";
  }
  return unlinkIfThere(path) ? "removed" : "missing";
}

/** @throws CkptError when the list is damaged */
function readLinks(directory: string): NotedLink[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(`${directory}/${LINKS_NAME}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  try {
    const links: unknown = JSON.parse(text);
    if (Array.isArray(links) && links.every(isLink)) return links;
  } catch {
    // Told below.
  }
  throw new CkptError(EXIT.image, `reading ${directory}`, [{
    object: LINKS_NAME,
    why: "is damaged: it does not list links",
  }]);
}

function isLink(value: unknown): value is NotedLink {
  const { path, dev, ino } = (value ?? {}) as Record<string, unknown>;
  return typeof path === "string" && path.startsWith("/") &&
    [dev, ino].every((number) =>
      typeof number === "string" && /^\d+$/.test(number)
    );
}

/** Replaces the list at one moment; an empty one is no file. */
function writeLinks(directory: string, links: readonly NotedLink[]): void {
  const path = `${directory}/${LINKS_NAME}`;
  if (links.length === 0) {
    unlinkIfThere(path);
    return;
  }
  const unfinished = `${path}.new`;
  using file = Deno.openSync(unfinished, {
    write: true,
    create: true,
    truncate: true,
    mode: 0o600,
  });
  const bytes = new TextEncoder().encode(`${JSON.stringify(links)}\n`);
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  file.syncSync();
  Deno.renameSync(unfinished, path);
}
