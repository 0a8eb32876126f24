import { assertEquals } from "@std/assert";
import { close, O, open } from "../ffi/syscall.ts";
import { digestContent } from "./content_digest.ts";

const MIB = 1 << 20;

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

Deno.test("a digest is the SHA-256 of a small file, and that of the blocks of a large one", async () => {
  const path = await Deno.makeTempFile();
  const digest = async (content: Uint8Array, atMost = Infinity) => {
    await Deno.writeFile(path, content);
    const fd = open(path, O.RDONLY);
    try {
      const { digest, bytes } = await digestContent(fd, atMost);
      return [digest.toHex(), bytes];
    } finally {
      close(fd);
    }
  };
  try {
    const large = new Uint8Array(17 * MIB).map((_, i) => i % 251);
    for (const size of [0, 5, 16 * MIB]) {
      const part = large.slice(0, size);
      assertEquals(await digest(part), [(await sha256(part)).toHex(), size]);
    }
    const blocks = new Uint8Array(64);
    blocks.set(await sha256(large.slice(0, 16 * MIB)));
    blocks.set(await sha256(large.slice(16 * MIB)), 32);
    assertEquals(
      await digest(large),
      [(await sha256(blocks)).toHex(), 17 * MIB],
    );
    assertEquals(
      await digest(large, 10),
      [(await sha256(large.slice(0, 10))).toHex(), 10],
    );
  } finally {
    await Deno.remove(path);
  }
});
