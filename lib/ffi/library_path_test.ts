import { assertEquals } from "@std/assert";
import { libraryPath, memfdOf, packedStart } from "./library_path.ts";

Deno.test("what the loader of the packed binary says is read", () => {
  const told = globalThis as { ckptStart?: unknown };
  assertEquals(packedStart(), undefined);
  told.ckptStart = { library: "4", nofile: "18446744073709551615" };
  try {
    assertEquals(packedStart(), { library: 4, nofile: 2n ** 64n - 1n });
  } finally {
    delete told.ckptStart;
  }
});

Deno.test("in development the library is the one that make builds", () => {
  const expected = new URL("../../dist/libckpt.so", import.meta.url);
  assertEquals(new URL(libraryPath(), "file:").href, expected.href);
});

Deno.test("a library can be loaded from a memfd made of its bytes", () => {
  const libm = Deno.readTextFileSync("/proc/self/maps")
    .match(/\/\S*\/libm\.so\.6$/m);
  if (libm === null) throw new Error("Deno has not loaded libm.so.6");
  const path = memfdOf("libm", Deno.readFileSync(libm[0]));
  const library = Deno.dlopen(path, {
    sqrt: { parameters: ["f64"], result: "f64" },
  });
  assertEquals(library.symbols.sqrt(9), 3);
  library.close();
});
