/** Images of small trees, written and read as a restore reads them. */
import { readImageSet } from "../../image/image_set.ts";
import {
  type ImagePart,
  type MinimalImage,
  writeTree,
} from "../../image/testing/minimal_image.ts";
import { readTreeImages, type TreeImages } from "../task_images.ts";

/**
 * @param images the root first
 * @param use what to do while the files are there
 */
export async function withTree<T>(
  images: readonly MinimalImage[],
  use: (images: TreeImages) => T | Promise<T>,
  more: readonly ImagePart[] = [],
): Promise<T> {
  const directory = await Deno.makeTempDir();
  try {
    writeTree(directory, images, more);
    return await use(readTreeImages(readImageSet(directory)));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
