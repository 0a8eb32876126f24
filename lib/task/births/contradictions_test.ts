import { assertEquals } from "@std/assert";
import { parentProblems, sessionAndGroupProblems } from "./contradictions.ts";
import { Family } from "./family.ts";
import { readTree } from "./testing/text.ts";

Deno.test("parents live and come first, and no pid is there twice", () => {
  for (
    const [problem, ...tree] of [
      ["10: it comes first, but has the parent 9", "10 9 10 10"],
      ["11: its parent 12 does not come before it", "10 0 0 0", "11 12 0 0"],
      ["11: its parent 0 does not come before it", "10 0 0 0", "11 0 0 0"],
      ["11: its parent 11 does not come before it", "10 0 0 0", "11 11 0 0"],
      ["11: it is there twice", "10 0 0 0", "11 10 0 0", "11 10 0 0"],
      [
        "12: its parent 11 is dead: it would have got another one",
        "10 0 0 0",
        "11 10 0 0 dead",
        "12 11 0 0",
      ],
    ]
  ) {
    assertEquals(
      parentProblems(readTree(...tree))
        .map(({ object, why }) => `${object}: ${why}`),
      [`process ${problem}`],
    );
  }
  assertEquals(parentProblems(readTree("10 0 0 0", "11 10 0 0 dead")), []);
});

Deno.test("sessions and groups are such as setsid and setpgid make them", () => {
  for (
    const [problem, ...tree] of [
      [
        "10: it is the first of the tree, and its session 9 was made by a " +
        "process outside of the tree",
        "10 0 9 9",
      ],
      [
        "12: its session 11 cannot be: process 11 is in session 10",
        "10 0 10 10",
        "11 10 10 10",
        "12 10 11 12",
      ],
      [
        "11: it leads its session, but not its group, which is 40",
        "10 0 10 10",
        "11 10 11 40",
      ],
      [
        "11: its session 77 cannot be: it is the id of a thread",
        "10 0 0 0",
        "11 10 77 78",
      ],
      [
        "11: its group 77 cannot be: it is the id of a thread",
        "10 0 0 0",
        "11 10 0 77",
      ],
      [
        "11: it is in the group of the outside, but in session 40",
        "10 0 0 0",
        "11 10 40 0",
      ],
      [
        "11: there is a group 11 in which it is not: it cannot go back to the " +
        "group of the outside when it has made that",
        "10 0 0 0",
        "11 10 0 0",
        "12 10 0 11",
      ],
      [
        "12: its group 40 is in two sessions, 10 and 0",
        "10 0 10 10",
        "11 10 10 40",
        "12 10 0 40",
      ],
      [
        "12: its group 11 cannot be in session 0: process 11, who made it, is " +
        "in session 10",
        "10 0 10 10",
        "11 10 10 10",
        "12 10 0 11",
      ],
      [
        "12: its group 40 cannot be in session 10: there is a session 40",
        "10 0 10 10",
        "11 10 40 41",
        "12 10 10 40",
      ],
    ]
  ) {
    assertEquals(
      sessionAndGroupProblems(new Family(readTree(...tree)), new Set([77]))
        .map(({ object, why }) => `${object}: ${why}`),
      [`process ${problem}`],
    );
  }
});
