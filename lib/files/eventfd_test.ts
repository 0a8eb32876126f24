import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { O } from "../ffi/syscall.ts";
import { fd_types } from "../image/schema.gen.ts";
import { readFdInfo } from "../proc/read.ts";
import {
  dumpEventfd,
  type Eventfd,
  eventfdProblem,
  isBeyondEntry,
  parseEventfd,
} from "./eventfd.ts";
import { NO_OBJECTS } from "./object_images.ts";
import { NO_OWNER } from "./file_table.ts";
import { withRestored } from "./testing/restored_task.ts";

const MOST = 2n ** 64n - 2n;

Deno.test("an eventfd is read from what fdinfo tells", () => {
  const cases: [string[], bigint, boolean][] = [
    [["eventfd-count:                5", "eventfd-id: 1"], 5n, false],
    [
      [
        "eventfd-count: fffffffffffffffe",
        "eventfd-id: 1",
        "eventfd-semaphore: 0",
      ],
      MOST,
      false,
    ],
    [
      [
        "eventfd-count:               1f",
        "eventfd-id: 9",
        "eventfd-semaphore: 1",
      ],
      31n,
      true,
    ],
  ];
  for (const [lines, count, semaphore] of cases) {
    assertEquals(parseEventfd(lines), { kind: "eventfd", count, semaphore });
  }
  assertThrows(() => parseEventfd(["eventfd-id: 1"]), CkptError);
  assertThrows(() => parseEventfd(["eventfd-count: -1"]), CkptError);
});

Deno.test("CRIU's entry is not enough for semaphores and for high counts", () => {
  const cases: [bigint, boolean, boolean][] = [
    [0n, false, false],
    [2n ** 32n - 1n, false, false],
    [2n ** 32n, false, true],
    [0n, true, true],
  ];
  for (const [count, semaphore, beyond] of cases) {
    assertEquals(isBeyondEntry({ kind: "eventfd", count, semaphore }), beyond);
  }
});

Deno.test("a count that cannot be written is a problem", () => {
  const entry = { id: 1, flags: 2, fown: NO_OWNER, counter: MOST };
  assertEquals(eventfdProblem(entry), undefined);
  assertEquals(
    typeof eventfdProblem({ ...entry, counter: MOST + 1n }),
    "string",
  );
});

Deno.test("eventfds are restored with counts, kind and flags", () => {
  const objects = [0n, 5n, 2n ** 32n - 1n, 2n ** 32n, MOST].flatMap((count) =>
    [false, true].flatMap((semaphore) =>
      [O.RDWR, O.RDWR | O.NONBLOCK, O.RDWR | O.APPEND].map((flags) => ({
        object: { kind: "eventfd", count, semaphore } satisfies Eventfd,
        flags,
      }))
    )
  );
  const files = objects.map(({ object, flags }, i) => ({
    type: fd_types.EVENTFD,
    id: i + 1,
    efd: dumpEventfd(i + 1, object, flags, NO_OWNER),
  }));
  withRestored(
    files,
    [Object.fromEntries(files.map(({ id }) => [id + 2, id]))],
    ([pid]) => {
      objects.forEach(({ object, flags }, i) => {
        const info = readFdInfo(pid, i + 3);
        assertEquals(parseEventfd(info.extra), object);
        assertEquals(info.flags, flags);
      });
    },
    {
      objects: {
        ...NO_OBJECTS,
        semaphores: new Set(
          files.filter((_, i) => objects[i].object.semaphore)
            .map(({ id }) => id),
        ),
      },
    },
  );
});
