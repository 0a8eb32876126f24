/** Whether paths lead somewhere. */

/** Whether a path leads to a file; links are followed. */
export function pathExists(path: string): boolean {
  return ifFound(() => Deno.statSync(path));
}

/** Whether there is a file of this name; it may be a link that leads nowhere. */
export function nameExists(path: string): boolean {
  return ifFound(() => Deno.lstatSync(path));
}

function ifFound(look: () => void): boolean {
  try {
    look();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
