import { assertEquals } from "@std/assert";
import { compileSchema } from "../../tools/compile_schema.ts";

Deno.test("the compiled schema is that of proto/", () => {
  assertEquals(
    Deno.readTextFileSync(new URL("./schema.gen.ts", import.meta.url)),
    compileSchema(new URL("../../proto", import.meta.url).pathname),
    "run: deno run -A tools/compile_schema.ts",
  );
});
