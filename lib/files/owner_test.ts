import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { close, syscall } from "../ffi/syscall.ts";
import type { fown_entry } from "../image/schema.gen.ts";
import { readStatus } from "../proc/read.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { NO_OWNER } from "./file_table.ts";
import { readOwner, restoreOwner } from "./owner.ts";

/** F_OWNER_TID, F_OWNER_PID and F_OWNER_PGRP (fcntl(2)). */
const OWNER = { thread: 0, process: 1, group: 2 };

/** What a task that sets this owner of a file tells of the file then. */
function restored(owner: (pid: number) => fown_entry): {
  wanted: fown_entry;
  found: fown_entry;
} {
  using task = new AgentTask();
  const wanted = owner(task.pid);
  const program = new Program();
  const fd = program.call(
    "openat",
    [-100, program.text("/dev/null"), 2, 0],
    "opening",
  );
  restoreOwner(program, fd, wanted, "descriptor 1 (/dev/null)");
  const number = Number(task.run(program).result(fd));
  const { uid } = readStatus(task.pid);
  assertEquals([...uid], [0, 0, 0, 0], "root is not root again");
  const pidfd = syscall("pidfd_open", BigInt(task.pid));
  const own = Number(syscall("pidfd_getfd", pidfd, BigInt(number)));
  try {
    return { wanted, found: readOwner(own) };
  } finally {
    close(own);
    close(Number(pidfd));
  }
}

const CASES: readonly [what: string, owner: (pid: number) => fown_entry][] = [
  ["no owner and no signal", () => NO_OWNER],
  ["a signal without an owner", () => ({ ...NO_OWNER, signum: 34 })],
  [
    "a process, whose owner root set",
    (pid) => ({ ...NO_OWNER, pid_type: OWNER.process, pid }),
  ],
  [
    "a thread and a signal",
    (pid) => ({ ...NO_OWNER, signum: 10, pid_type: OWNER.thread, pid }),
  ],
  [
    "a group, set by a user",
    () => {
      const stat = Deno.readTextFileSync("/proc/self/stat");
      const pgrp = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2]);
      return {
        ...NO_OWNER,
        uid: 1000,
        euid: 1001,
        pid_type: OWNER.group,
        pid: pgrp,
      };
    },
  ],
  [
    "a process, set with root's real id only",
    (pid) => ({ ...NO_OWNER, euid: 77, pid_type: OWNER.process, pid }),
  ],
  [
    "a process, set with the largest user ids",
    (pid) => ({
      ...NO_OWNER,
      uid: 0xfffffffe,
      euid: 0xfffffffd,
      pid_type: OWNER.process,
      pid,
    }),
  ],
];

for (const [what, owner] of CASES) {
  Deno.test(`a file gets its owner again: ${what}`, () => {
    const { wanted, found } = restored(owner);
    assertEquals(found, wanted);
  });
}
