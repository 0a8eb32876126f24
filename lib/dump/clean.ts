/** `ckpt clean`: removes what dumps have left outside of their images. */
import { CkptError, EXIT } from "../error.ts";
import { cleanCriuLinks } from "../ghost/criu_links.ts";
import { type Cleaned, cleanLinks } from "../ghost/links.ts";
import { lockName, removeLock } from "../files/network_lock.ts";
import { decodeImage } from "../image/framing.ts";
import { cleanSnapshots } from "../ghost/snapshots.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type { inventory_entry } from "../image/schema.gen.ts";

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
  const inventory = readInventory(directory);
  const lock = inventory && leftLock(inventory);
  if (lock !== undefined && removeLock(lock)) {
    cleaned.removed.push(`nf_tables: table inet ${lock}`);
  }
  cleanSnapshots(directory, cleaned);
  if (inventory !== undefined) cleanCriuLinks(directory, cleaned);
  return cleaned;
}

/** Undefined: there is no complete image. */
function readInventory(directory: string): inventory_entry | undefined {
  const path = `${directory}/${imageName("inventory")}`;
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  return decodeImage(
    "inventory",
    bytes,
    { directory, name: imageName("inventory") },
  );
}

/** What blocks the TCP connections of the image, if it has any. */
function leftLock(
  { network_lock_method, dump_criu_run_id }: inventory_entry,
): string | undefined {
  const NFTABLES = 1;
  return network_lock_method === NFTABLES && dump_criu_run_id !== undefined
    ? lockName(dump_criu_run_id)
    : undefined;
}
