/** The progress line, on a clock and a terminal of the test's own. */
import { assertEquals } from "@std/assert";
import { formatProgress, ProgressLine } from "./progress.ts";

function terminal(columns = 80) {
  const state = { text: "", now: 1000 };
  const line = new ProgressLine(
    (text) => state.text += text,
    () => columns,
    () => state.now,
  );
  return { state, line };
}

Deno.test("work of less than half a second shows nothing", () => {
  const { state, line } = terminal();
  state.now += 499;
  line.update("writing pages", 1, 2);
  line.clear();
  assertEquals(state.text, "");
});

Deno.test("longer work shows one line, rewritten, and erased at the end", () => {
  const { state, line } = terminal();
  state.now += 500;
  line.update("writing pages", 1n, 4n);
  state.now += 50;
  line.update("writing pages", 2n, 4n);
  state.now += 50;
  line.update("writing pages", 3n, 4n);
  line.clear();
  line.clear();
  assertEquals(
    state.text,
    "\r\x1b[Kwriting pages: 25%\r\x1b[Kwriting pages: 75%\r\x1b[K",
  );
});

Deno.test("the line is never as wide as the terminal", () => {
  const { state, line } = terminal(10);
  state.now += 500;
  line.update("writing pages", 1, 4);
  assertEquals(state.text, "\r\x1b[Kwriting p");
});

Deno.test("the share stays between 0 and 100, and is left out when unknown", () => {
  assertEquals(formatProgress("s", 0, 0), "s");
  assertEquals(formatProgress("s", 5n, 0n), "s");
  assertEquals(formatProgress("s", 999, 1000), "s: 99%");
  assertEquals(formatProgress("s", 7, 5), "s: 100%");
  assertEquals(formatProgress("s", 2n ** 63n, 2n ** 64n), "s: 50%");
});
