/** The directory of a dump's images. */

/**
 * Makes it when it is missing, for the owner only: images hold the memory of
 * programs.
 *
 * @returns whether it was missing
 */
export function makeImagesDirectory(directory: string): boolean {
  try {
    Deno.mkdirSync(directory, { mode: 0o700 });
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
}
