/** `ckpt clean`: removes what dumps have left outside of their images. */
import { CkptError, EXIT } from "../error.ts";
import { type Cleaned, cleanLinks } from "../ghost/links.ts";
import { ImageWriter } from "../image/image_writer.ts";

/**
 * @throws CkptError when there is no such directory, or a dump is writing to it
 */
export function clean(directory: string): Cleaned {
  try {
    Deno.statSync(directory);
  } catch (error) {
    throw new CkptError(EXIT.image, `cleaning ${directory}`, [{
      object: directory,
      why: error instanceof Deno.errors.NotFound
        ? "there is no such directory"
        : `${error}`,
      remedy: "name the directory of a dump: ckpt clean DIR",
    }], { cause: error });
  }
  // It takes the place of a dump, and leaves none: what a killed one left goes.
  using _writer = ImageWriter.open(directory, { replace: true });
  return cleanLinks(directory);
}
