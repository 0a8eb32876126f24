/** `ckpt clean`: removes what dumps have left outside of their images. */
import { CkptError, EXIT } from "../error.ts";
import { type Cleaned, cleanLinks } from "../ghost/links.ts";
import { lockName, removeLock } from "../files/network_lock.ts";
import { decodeImage } from "../image/framing.ts";
import { cleanSnapshots } from "../ghost/snapshots.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";

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
  const cleaned = cleanLinks(directory);
  const lock = leftLock(directory);
  if (lock !== undefined && removeLock(lock)) {
    cleaned.removed.push(`nf_tables: table inet ${lock}`);
  }
  cleanSnapshots(directory, cleaned);
  return cleaned;
}

/** What blocks the TCP connections of the image, if it has any. */
function leftLock(directory: string): string | undefined {
  const NFTABLES = 1;
  const path = `${directory}/${imageName("inventory")}`;
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const { network_lock_method, dump_criu_run_id } = decodeImage(
    "inventory",
    bytes,
    { directory, name: imageName("inventory") },
  );
  return network_lock_method === NFTABLES && dump_criu_run_id !== undefined
    ? lockName(dump_criu_run_id)
    : undefined;
}
