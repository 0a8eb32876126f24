/**
 * Lists of what a dump makes outside of its images, written down before it is
 * made: JSON in the directory of images, replaced at one moment.
 */
import { CkptError, EXIT } from "../error.ts";
import { unlinkIfThere } from "./calls.ts";

/**
 * @param what the list is of: "links"
 * @returns empty when there is no such file
 * @throws CkptError when it is damaged
 */
export function readList<T>(
  directory: string,
  name: string,
  what: string,
  isEntry: (value: unknown) => value is T,
): T[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(`${directory}/${name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  try {
    const all: unknown = JSON.parse(text);
    if (Array.isArray(all) && all.every(isEntry)) return all;
  } catch {
    // Told below.
  }
  throw new CkptError(EXIT.image, `reading ${directory}`, [{
    object: name,
    why: `is damaged: it does not list ${what}`,
  }]);
}

/** An empty list is no file. */
export function writeList(path: string, list: readonly unknown[]): void {
  if (list.length === 0) {
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
  const bytes = new TextEncoder().encode(`${JSON.stringify(list)}\n`);
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  file.syncSync();
  Deno.renameSync(unfinished, path);
}
