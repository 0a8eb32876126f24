/** Reads a part of a file. */

/** As many bytes as there are from `position`, `most` at most. */
export function readAt(
  file: Deno.FsFile,
  position: number,
  most: number,
): Uint8Array {
  const buffer = new Uint8Array(most);
  file.seekSync(position, Deno.SeekMode.Start);
  let length = 0;
  while (length < most) {
    const count = file.readSync(buffer.subarray(length));
    if (count === null || count === 0) break;
    length += count;
  }
  return buffer.subarray(0, length);
}
