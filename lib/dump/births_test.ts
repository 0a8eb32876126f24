import { assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { listTree, type TreeMember } from "../task/process_tree.ts";
import { birthProblems } from "./births.ts";

function member(
  pid: number,
  ppid: number,
  session: number,
  pgrp = session,
  zombie = false,
): TreeMember {
  return { pid, zombie, stat: { pid, ppid, session, pgrp } } as TreeMember;
}

function told(...members: TreeMember[]): string[] {
  return birthProblems(members).map(({ object, why }) => `${object}: ${why}`);
}

Deno.test("trees that can be born again are no reason", async () => {
  assertEquals(told(member(10, 1, 10)), []);
  assertEquals(
    told(
      member(10, 1, 10),
      member(11, 10, 11),
      // An orphan, a zombie, and one whose session's leader is gone.
      member(12, 10, 11),
      member(13, 10, 10, 10, true),
      member(14, 11, 999),
    ),
    [],
  );
  await using program = await ChildProgram.start(`
ready(child(lambda: [os.setsid(), child(), child(os.setsid)]))
`);
  assertEquals(birthProblems(listTree(program.pid).members), []);
});

Deno.test("a job of a shell may be in groups of the outside", () => {
  assertEquals(
    told(member(10, 1, 5, 10), member(11, 10, 5, 10), member(12, 10, 5, 12)),
    [],
  );
  assertEquals(
    told(member(10, 1, 5, 6), member(11, 10, 5, 6), member(12, 10, 5, 7)),
    [],
  );
});

Deno.test("a tree that no restore could make is told", () => {
  // Two processes of a session whose leader is gone: it was below one of the
  // parents, and so the other one cannot have got its child from there.
  assertEquals(
    told(
      member(10, 1, 10),
      member(11, 10, 11),
      member(12, 11, 999),
      member(13, 10, 13),
      member(14, 13, 999),
      member(15, 13, 13),
      member(16, 15, 999),
    ).length > 0,
    true,
  );
  assertEquals(told(member(10, 1, 10), member(11, 10, 11, 10)), [
    "process 11: it leads its session, but not its group, which is 10",
    "process 11: its group 10 is in two sessions, 10 and 11",
  ]);
});
