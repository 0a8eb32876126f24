import { assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { encodeImage } from "./framing.ts";
import { readImageSet } from "./image_set.ts";
import { ImageWriter } from "./image_writer.ts";
import { PARTIAL_NAME } from "./kinds.ts";
import { MANIFEST_NAME } from "./manifest.ts";
import {
  imageParts,
  minimalImage,
  writeWithManifest,
  writeWithoutManifest,
} from "./testing/minimal_image.ts";

function inDirectory(test: (directory: string) => void | Promise<void>) {
  return async () => {
    const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
    try {
      await test(directory);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  };
}

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test(
  "what is written is read again, with a manifest and without",
  inDirectory(async (directory) => {
    const image = minimalImage();
    await writeWithManifest(`${directory}/a`, image);
    Deno.mkdirSync(`${directory}/b`);
    writeWithoutManifest(`${directory}/b`, image);
    for (const one of ["a", "b"]) {
      const set = readImageSet(`${directory}/${one}`);
      for (const [kind, index, content] of imageParts(image)) {
        assertEquals(set.read(kind, index), content);
      }
      assertEquals(set.manifest !== undefined, one === "a");
      assertEquals(set.indices("core"), [4242n]);
      assertEquals(set.size("pages-1.img"), image.pages.length);
    }
  }),
);

Deno.test(
  "every file is readable by its owner only, and nothing else is left",
  inDirectory(async (directory) => {
    await writeWithManifest(directory, minimalImage());
    assertEquals(names(directory), [
      MANIFEST_NAME,
      "core-4242.img",
      "fdinfo-2.img",
      "files.img",
      "fs-4242.img",
      "ids-4242.img",
      "inventory.img",
      "mm-4242.img",
      "pagemap-4242.img",
      "pages-1.img",
      "pstree.img",
      "seccomp.img",
      "timens-0.img",
    ]);
    for (const name of names(directory)) {
      assertEquals(Deno.statSync(`${directory}/${name}`).mode! & 0o777, 0o600);
    }
  }),
);

Deno.test(
  "a directory with another image is refused unless it may be replaced",
  inDirectory(async (directory) => {
    await writeWithManifest(directory, minimalImage(10));
    Deno.writeTextFileSync(`${directory}/dump.log`, "kept");
    assertThrows(
      () => ImageWriter.open(directory, { replace: false }),
      CkptError,
      "holds another image",
    );
    const before = names(directory);
    const image = minimalImage(11);
    {
      using writer = ImageWriter.open(directory, { replace: true });
      writer.write("mm", 11, image.mm);
    }
    assertEquals(names(directory), before);

    using writer = ImageWriter.open(directory, { replace: true });
    for (const [kind, index, content] of imageParts(image)) {
      if (kind !== "inventory") writer.write(kind, index, content);
    }
    Deno.writeFileSync(writer.createRaw("pages-1.img"), image.pages);
    await writer.commit(image.inventory, "0.0.0");
    assertEquals(
      names(directory),
      before.map((name) => name.replace(/-10\.img$/, "-11.img")).sort(),
    );
    assertEquals(Deno.readTextFileSync(`${directory}/dump.log`), "kept");
  }),
);

Deno.test(
  "an aborted dump leaves the directory as it was, a killed one's remains go",
  inDirectory(async (directory) => {
    const made = `${directory}/made`;
    const writer = ImageWriter.open(made, { replace: false });
    writer.write("fs", 1, { cwd_id: 1, root_id: 2 });
    writer.createRaw("pages-1.img");
    assertThrows(
      () => ImageWriter.open(made, { replace: false }),
      CkptError,
      "another dump is writing",
    );
    writer.abort();
    assertEquals(names(directory), []);

    Deno.mkdirSync(`${directory}/${PARTIAL_NAME}`);
    Deno.writeTextFileSync(`${directory}/${PARTIAL_NAME}/inventory.img`, "x");
    Deno.writeTextFileSync(`${directory}/fs-7.img`, "x");
    assertThrows(
      () => readImageSet(directory),
      CkptError,
      "did not complete",
    );
    await writeWithManifest(directory, minimalImage());
    assertEquals(names(directory).includes("fs-7.img"), false);
    readImageSet(directory);
  }),
);

Deno.test(
  "a directory whose dump did not complete is no image",
  inDirectory(async (directory) => {
    await writeWithManifest(directory, minimalImage());
    Deno.removeSync(`${directory}/inventory.img`);
    assertThrows(
      () => readImageSet(directory),
      CkptError,
      "did not complete",
    );
  }),
);

Deno.test(
  "old framing, pre-dumps, split files and unknown plugins are refused by name",
  inDirectory(async (directory) => {
    const refuses = (words: string) => {
      writeWithoutManifest(directory, image);
      assertThrows(() => readImageSet(directory), CkptError, words);
      image = minimalImage();
    };
    let image = minimalImage();
    image.inventory.img_version = 1;
    await refuses("framing of version 1.0");
    image.inventory.img_version = 3;
    await refuses("img_version: is 3");
    image.inventory.plugins_entry = { plugins: ["ckpt:tsc", "amdgpu_plugin"] };
    await refuses('"amdgpu_plugin" is needed');
    Deno.writeTextFileSync(`${directory}/reg-files.img`, "");
    await refuses("reg-files.img: is of an old version");
    Deno.removeSync(`${directory}/reg-files.img`);
    Deno.removeSync(`${directory}/pstree.img`);
    writeWithoutManifest(directory, image);
    Deno.removeSync(`${directory}/pstree.img`);
    Deno.writeFileSync(
      `${directory}/inventory.img`,
      encodeImage("inventory", { img_version: 0, pre_dump_mode: 1 }),
    );
    assertThrows(() => readImageSet(directory), CkptError, "pre-dump");
  }),
);

Deno.test(
  "a directory that is missing is named, with what to do",
  inDirectory((directory) => {
    const error = assertThrows(
      () => readImageSet(`${directory}/missing`),
      CkptError,
      "there is no such directory",
    );
    assertEquals(error.exit, EXIT.image);
    assertEquals(
      error.reasons[0].remedy,
      "name the directory of a dump: -D DIR",
    );
  }),
);
