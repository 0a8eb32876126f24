import { assertEquals } from "@std/assert";
import { parseTold } from "./inside.ts";
import type { NamespaceKind } from "./kinds.ts";

const IDS = "1 2 3 4 5 6 7 8";

Deno.test("a ckpt inside knows where it was called, and what it entered", () => {
  const told = parseTold(`5 -1 1 4711 ${0x2000_0000 + 0x80} 9 ${IDS}`);
  assertEquals(told, {
    channel: 5,
    root: 1,
    rootOutside: 4711,
    started: undefined,
    directory: 9,
    entered: new Set<NamespaceKind>(["pid", "time"]),
    outer: new Map<NamespaceKind, string>([
      ["cgroup", "cgroup:[1]"],
      ["ipc", "ipc:[2]"],
      ["mnt", "mnt:[3]"],
      ["net", "net:[4]"],
      ["pid", "pid:[5]"],
      ["time", "time:[6]"],
      ["user", "user:[7]"],
      ["uts", "uts:[8]"],
    ]),
  });
});

Deno.test("a root that was started has a lifeline", () => {
  const told = parseTold(`5 6 1 4711 0 9 ${IDS}`);
  assertEquals(told && "started" in told && told.started, { lifeline: 6 });
});

Deno.test("why ckpt could not go inside is told; what nobody writes is nothing", () => {
  assertEquals(parseTold("error 3 1"), { step: 3, errno: 1 });
  assertEquals(parseTold("error 3"), undefined);
  assertEquals(parseTold(""), undefined);
  assertEquals(parseTold(`5 6 1 4711 0 9 ${IDS} 9`), undefined);
});
