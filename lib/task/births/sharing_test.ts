import { assertEquals } from "@std/assert";
import { bearingSiblings, lostSharing, type Sharer } from "./sharing.ts";

/** "pid ppid", then what it has: letters for vm, sighand, files, fs; maybe its exit signal. */
function sharers(...lines: string[]): Sharer[] {
  return lines.map((line) => {
    const [pid, ppid, objects, exitSignal = "17"] = line.split(" ");
    const [vm, sighand, files, fs] = [...objects].map((letter) =>
      letter.charCodeAt(0)
    );
    return {
      pid: Number(pid),
      ppid: Number(ppid),
      exitSignal: Number(exitSignal),
      objects: { vm, sighand, files, fs },
    };
  });
}

const CASES: [what: string, lines: string[], bearing: [number, number][]][] = [
  ["nobody shares", ["1 0 aaaa", "2 1 bbbb", "3 1 cccc"], []],
  [
    "what the parent has comes from it",
    ["1 0 aaaa", "2 1 aaaa", "3 1 aaaa"],
    [],
  ],
  ["siblings share descriptors", ["1 0 aaaa", "2 1 bbbb", "3 1 ccbc"], [[
    3,
    2,
  ]]],
  ["three share, the first bears all", [
    "1 0 aaaa",
    "2 1 bbbb",
    "3 1 ccbc",
    "4 1 ddbd",
  ], [[3, 2], [4, 2]]],
  ["the sibling has the parent's, too", ["1 0 aaaa", "2 1 bbba", "3 1 ccba"], [[
    3,
    2,
  ]]],
  [
    "the sibling has not the parent's",
    ["1 0 aaaa", "2 1 bbbb", "3 1 ccba"],
    [],
  ],
  ["another exit signal", ["1 0 aaaa", "2 1 bbbb 10", "3 1 ccbc"], []],
  ["with a nephew", ["1 0 aaaa", "2 1 bbbb", "3 2 cccc", "4 1 ddcd"], []],
];
for (const [what, lines, expected] of CASES) {
  Deno.test(`who bears whom: ${what}`, () => {
    assertEquals([...bearingSiblings(sharers(...lines))], expected);
  });
}

Deno.test("sharing is lost by who is born from another one", () => {
  const tree = sharers("1 0 aaaa", "2 1 bbbb", "3 1 ccbc", "4 3 ddbd");
  assertEquals(lostSharing(tree, new Map([[2, 1], [3, 2], [4, 3]])), []);
  assertEquals(lostSharing(tree, new Map([[2, 1], [3, 1], [4, 3]])), [
    { pid: 3, other: 2, kind: "files" },
  ]);
});
