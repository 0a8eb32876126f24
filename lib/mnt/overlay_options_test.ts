import { assertEquals } from "@std/assert";
import { parseMountInfo } from "../proc/mountinfo.ts";
import { layersNamed } from "./overlay_options.ts";

/** As lines of mountinfo show them: "upper /up" */
function named(options: string): string[] {
  const [{ superOptions }] = parseMountInfo(
    `30 1 0:40 / /m rw,relatime - overlay o ${options}\n`,
  );
  return layersNamed(superOptions).map(({ role, path }) => `${role} ${path}`);
}

Deno.test("layers are named by one option, or by one option each", () => {
  assertEquals(
    named("rw,lowerdir=/a:/b,upperdir=/up,workdir=/work,xino=off"),
    ["upper /up", "work /work", "lower /a", "lower /b"],
  );
  assertEquals(named("ro,lowerdir+=/a,lowerdir+=/b:c,datadir+=/d"), [
    "lower /a",
    "lower /b:c",
    "data /d",
  ]);
  assertEquals(named("ro,lowerdir=/a:/b::/c::/d"), [
    "lower /a",
    "lower /b",
    "data /c",
    "data /d",
  ]);
  assertEquals(named("rw"), []);
});

Deno.test("colons and commas of paths are told from those between them", () => {
  assertEquals(named("ro,lowerdir=/a\\134:b:/c\\040d"), [
    "lower /a:b",
    "lower /c d",
  ]);
  assertEquals(named("rw,lowerdir=/a\\,b,upperdir=/x\\134\\054y,workdir=/w"), [
    "upper /x,y",
    "work /w",
    "lower /a,b",
  ]);
});
