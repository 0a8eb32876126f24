import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseLimits, RLIM_INFINITY } from "./limits.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const TEXT = `
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             96365                96365                processes 
Max open files            20000                1048576              files     
Max locked memory         18446744073709551614 18446744073709551614 bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       96365                96365                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    20                   
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
`.slice(1);

Deno.test("limits stand at their RLIMIT_ numbers", () => {
  const limits = parseLimits(TEXT);
  assertEquals(limits.length, 16);
  assertEquals(
    limits.map((limit) => limit.resource),
    limits.map((_, index) => index),
  );
  assertEquals(limits[3], {
    resource: 3,
    name: "Max stack size",
    soft: 8388608n,
    hard: RLIM_INFINITY,
    units: "bytes",
  });
  assertEquals(limits[7].hard, 1048576n);
  // As wide as the column.
  assertEquals(limits[8].soft, 2n ** 64n - 2n);
  assertEquals([limits[13].hard, limits[13].units], [20n, ""]);
  assertEquals(limits[15].units, "us");
});

Deno.test("the order of the lines does not matter", () => {
  const [heading, ...rest] = TEXT.trimEnd().split("\n");
  assertEquals(
    parseLimits([heading, ...rest.reverse()].join("\n")),
    parseLimits(TEXT),
  );
});

Deno.test("unknown, missing and malformed limits are errors", () => {
  const cases: [string, string][] = [
    [TEXT.replace("Max file locks ", "Max file lochs"), "not known"],
    [TEXT.replace(/Max file locks.*\n/, ""), 'no line "Max file locks"'],
    [TEXT.replace("20000  ", "20k    "), "decimal"],
    [TEXT.replace("819200               819200", "819200"), "decimal"],
    [TEXT.replace(/0 {20}20 /, "0 "), "a hard limit"],
    [TEXT.slice(TEXT.indexOf("\n") + 1), "headings"],
    ["", "no line"],
  ];
  for (const [text, why] of cases) {
    const error = assertThrows(() => parseLimits(text), CkptError);
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged limits either parse or give a CkptError", () => {
  assertParsesOrRejects(parseLimits, [TEXT]);
});
