import { assertEquals } from "@std/assert";
import { CAPABILITIES, maskHasCapability } from "./capability.ts";

Deno.test("capabilities stand at their numbers in linux/capability.h", () => {
  assertEquals(CAPABILITIES.length, 41);
  assertEquals(CAPABILITIES.indexOf("CAP_SYS_PTRACE"), 19);
  assertEquals(CAPABILITIES.indexOf("CAP_SYS_ADMIN"), 21);
  assertEquals(CAPABILITIES.indexOf("CAP_SYS_RESOURCE"), 24);
  assertEquals(CAPABILITIES.indexOf("CAP_CHECKPOINT_RESTORE"), 40);
});

Deno.test("a mask holds exactly the capabilities of its bits", () => {
  // All but CAP_SYS_RESOURCE.
  const mask = 0x000001fffeffffffn;
  assertEquals(
    CAPABILITIES.filter((name) => !maskHasCapability(mask, name)),
    ["CAP_SYS_RESOURCE"],
  );
  assertEquals(maskHasCapability(0n, "CAP_CHOWN"), false);
  assertEquals(maskHasCapability(1n, "CAP_CHOWN"), true);
});
