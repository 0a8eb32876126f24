import { assertEquals } from "@std/assert";
import { signalName } from "./signal_name.ts";

Deno.test("signals have names, those for real-time use have numbers", () => {
  assertEquals(
    [1, 9, 11, 15, 17, 19, 20, 31, 32, 64, 0].map(signalName),
    [
      "SIGHUP",
      "SIGKILL",
      "SIGSEGV",
      "SIGTERM",
      "SIGCHLD",
      "SIGSTOP",
      "SIGTSTP",
      "SIGSYS",
      "signal 32",
      "signal 64",
      "signal 0",
    ],
  );
});
