import { assert, assertEquals } from "@std/assert";
import { close, readLink, stat } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import {
  handleAt,
  isSameHandle,
  layerHandle,
  openByHandle,
} from "./handles.ts";

Deno.test("a file is found by its handle under the name it has now, and the working directory stays", () => {
  const directory = Deno.makeTempDirSync();
  const before = Deno.cwd();
  try {
    Deno.writeTextFileSync(`${directory}/a`, "");
    Deno.symlinkSync("a", `${directory}/link`);
    const handle = handleAt(`${directory}/a`)!;
    Deno.renameSync(`${directory}/a`, `${directory}/b`);
    assert(isSameHandle(handle, handleAt(`${directory}/b`)!));
    assert(!isSameHandle(handle, handleAt(`${directory}/link`)!));
    assertEquals(handleAt(`${directory}/a`), undefined);
    const fd = openByHandle(directory, handle)!;
    assertEquals(
      decodeText(readLink(`/proc/self/fd/${fd}`)),
      `${directory}/b`,
    );
    assertEquals(stat(fd).ino, stat(`${directory}/b`).ino);
    close(fd);
    assertEquals(openByHandle(`${directory}/nowhere`, handle), undefined);
    Deno.removeSync(`${directory}/b`);
    assertEquals(openByHandle(directory, handle), undefined);
    assertEquals(Deno.cwd(), before);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("the handle of an overlay has that of the layer in it", () => {
  // As Linux 6.18 gave it: 3 bytes, 21 of a head with a UUID, 12 of the file.
  const bytes = Uint8Array.fromHex(
    "00000000fb2104019226f5a0a07d4dbf875212ae825f2d8f" +
      "1bf9dae80500000000000000",
  );
  assertEquals(layerHandle({ type: 0xf8, bytes }), {
    type: 1,
    bytes: Uint8Array.fromHex("1bf9dae80500000000000000"),
  });
  assertEquals(layerHandle({ type: 1, bytes }), undefined);
  const short = bytes.slice(0, 24);
  assertEquals(layerHandle({ type: 0xf8, bytes: short }), undefined);
});
