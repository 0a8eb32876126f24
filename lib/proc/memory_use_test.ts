import { assertEquals } from "@std/assert";
import { parseMemoryUse } from "./memory_use.ts";

Deno.test("memory in use is anonymous and shared memory, in RAM and swapped out", () => {
  assertEquals(
    parseMemoryUse(
      "Name:\tVmSwap: 7 kB\nVmRSS:\t   9000 kB\nRssAnon:\t     100 kB\n" +
        "RssFile:\t    8000 kB\nRssShmem:\t      20 kB\nVmSwap:\t       3 kB\n",
    ),
    123 * 1024,
  );
  assertEquals(parseMemoryUse("Name:\tkthreadd\n"), 0);
  const own = parseMemoryUse(Deno.readTextFileSync("/proc/self/status"));
  assertEquals(own > 1 << 20, true);
});
