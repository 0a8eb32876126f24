import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { O } from "../ffi/syscall.ts";
import { fd_types } from "../image/schema.gen.ts";
import { readFdInfo } from "../proc/read.ts";
import { NO_OWNER } from "./file_table.ts";
import { dumpSignalfd, parseSignalfd } from "./signalfd.ts";
import { withRestored } from "./testing/restored_task.ts";

Deno.test("a signalfd is read from what fdinfo tells", () => {
  assertEquals(parseSignalfd(["sigmask:\t8000000000000200"]), {
    kind: "signalfd",
    mask: 1n << 63n | 1n << 9n,
  });
  assertThrows(() => parseSignalfd([]), CkptError);
  assertThrows(() => parseSignalfd(["sigmask:\t200"]), CkptError);
});

Deno.test("signalfds are restored with masks and flags", () => {
  // Without SIGKILL and SIGSTOP, which the kernel takes out.
  const all = (1n << 64n) - 1n & ~(1n << 8n) & ~(1n << 18n);
  const objects = [0n, 1n, 1n << 63n, all].flatMap((mask) =>
    [O.RDWR, O.RDWR | O.NONBLOCK].map((flags) => ({ mask, flags }))
  );
  const files = objects.map(({ mask, flags }, i) => ({
    type: fd_types.SIGNALFD,
    id: i + 1,
    sgfd: dumpSignalfd(i + 1, { kind: "signalfd", mask }, flags, NO_OWNER),
  }));
  withRestored(
    files,
    [Object.fromEntries(files.map(({ id }) => [id + 10, id]))],
    ([pid]) => {
      objects.forEach(({ mask, flags }, i) => {
        const info = readFdInfo(pid, i + 11);
        assertEquals(parseSignalfd(info.extra).mask, mask);
        assertEquals(info.flags, flags);
      });
    },
  );
});
