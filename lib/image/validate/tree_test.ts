import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../../error.ts";
import { readImageSet } from "../image_set.ts";
import type { ckpt_task_entry, pstree_entry } from "../schema.gen.ts";
import {
  endImage,
  type ImagePart,
  minimalChild,
  type MinimalImage,
  minimalImage,
  writeTree,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { validateImageSet } from "./mod.ts";
import { wrongIn } from "./testing/wrong_in.ts";

/** One more process: its place in the tree, and what is special about it. */
interface Child {
  place: pstree_entry;
  /** How it ended, as wait(2) gives it. */
  status?: number;
  change?: (image: MinimalImage) => void;
}

const ROOT = 4242;

function place(pid: number, ppid: number, sid = ROOT, pgid = ROOT) {
  return { pid, ppid, pgid, sid, threads: [pid] };
}

/** Writes the minimal image with children, and returns what is wrong with it. */
function complaints(
  children: Child[],
  more: ImagePart[] = [],
): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const images = children.map(({ place, status, change }) => {
      const image = minimalChild(place.pid, place);
      image.pstree = [place];
      if (status !== undefined) endImage(image, status);
      change?.(image);
      return image;
    });
    writeTree(directory, [minimalImage(ROOT), ...images], more);
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("a tree with children, sessions and a dead process is fine", async () => {
  assertEquals(
    await complaints([
      { place: place(10, ROOT) },
      { place: place(11, 10, 11, 11) },
      { place: place(12, 11, 11, 11) },
      // Its leader is dead and gone; a helper stands in.
      { place: place(13, ROOT, 999, 999) },
      { place: place(16, 10, 998, 998) },
      // What a dead process has for a thread means nothing.
      { place: { ...place(14, 10), threads: [3826944800] }, status: 0x300 },
      {
        place: place(15, 10),
        change: (image) => {
          image.core.tc!.task_state = 3;
          image.core.tc!.stop_signo = 20;
        },
      },
      // One table of descriptors.
      { place: place(17, 10), change: (image) => image.ids.files_id = 2 },
    ]),
    [],
  );
});

Deno.test("a process can have ended with a byte, or by a signal that ends", async () => {
  for (const status of [0, 0x100, 0xff00, 9, 0x8b, 64]) {
    assertEquals(await complaints([{ place: place(10, ROOT), status }]), []);
  }
  // Too large a byte, byte and signal, no signal, signals that do not end.
  for (
    const status of [0x10000, 0x80, 0x109, 65, 0x7f, 17, 18, 19, 22, 23, 28]
  ) {
    assertEquals(await complaints([{ place: place(10, ROOT), status }]), [
      "core-10.img, entry 0, field tc.exit_code: " +
      `0x${status.toString(16)} is no wait status`,
    ]);
  }
});

Deno.test("a process can be stopped by signals that stop", async () => {
  const stopped = (signal: number | undefined, state = 3) =>
    complaints([{
      place: place(10, ROOT),
      change: ({ core }) => {
        core.tc!.task_state = state;
        core.tc!.stop_signo = signal;
      },
    }]);
  for (const signal of [undefined, 19, 20, 21, 22]) {
    assertEquals(await stopped(signal), []);
  }
  for (const signal of [0, 18, 23, 9, 65, 0xffff_ffff]) {
    assertEquals(await stopped(signal), [
      "core-10.img, entry 0, field tc.stop_signo: " +
      `signal ${signal} stops no process`,
    ]);
  }
});

Deno.test("a tree that cannot be made is refused, with the process", async () => {
  const cases: [Child[], string][] = [
    [
      [{ place: place(10, 11) }, { place: place(11, ROOT) }],
      "pstree.img, entry 1, field ppid: 11 does not come before it",
    ],
    [
      [{ place: place(10, 0) }],
      "pstree.img, entry 1, field ppid: is a second root",
    ],
    [
      [{ place: place(10, ROOT, 0x400001) }],
      "pstree.img, entry 1, field sid: 4194305 is no process id",
    ],
    [
      [{ place: place(10, ROOT, ROOT, 0x400001) }],
      "pstree.img, entry 1, field pgid: 4194305 is no process id",
    ],
    [
      [{ place: place(10, ROOT, 10, 10) }, {
        place: place(11, ROOT, ROOT, 10),
      }],
      "pstree.img, entry 2, field pgid: 10 is in another session",
    ],
    [
      [{ place: { ...place(10, ROOT), threads: [10, ROOT] } }],
      "pstree.img, entry 1, field threads: 4242 is taken by another task",
    ],
    [
      [{ place: { ...place(10, ROOT), threads: [] }, status: 0 }],
      "pstree.img, entry 1, field threads: a dead process has one element",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.ids.uts_ns_id = 20 }],
      "ids-10.img, entry 0, field uts_ns_id: differs from the parent's",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.ids.net_ns_id = 20 }],
      "ids-10.img, entry 0, field net_ns_id: differs from the parent's",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.ids.mnt_ns_id = 20 }],
      "mountpoints-20.img: is missing",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.pagemap.pages_id = 1 }],
      "pagemap-10.img, entry 0, field pages_id: 1 is that of pagemap-4242.img",
    ],
  ];
  for (const [children, words] of cases) {
    const told = await complaints(children);
    assertEquals(told.filter((one) => one.startsWith(words)).length, 1, words);
  }
});

/** What is wrong with ckpt-task-10.img. */
async function extensionComplaints(
  entry: Partial<ckpt_task_entry>,
  change: (image: MinimalImage) => void = () => {},
  status?: number,
): Promise<string[]> {
  const whole = { threads: [], areas: [], cgroups: [], ...entry };
  const told = await complaints([{ place: place(10, ROOT), change, status }], [
    ["ckpt-task", 10, whole],
  ]);
  return told.map((one) =>
    one.replace("ckpt-task-10.img, entry 0, field ", "")
  );
}

Deno.test("what ckpt adds about a process has to be possible", async () => {
  const stop = ({ core }: MinimalImage) => core.tc!.task_state = 3;
  const range = (start: bigint, end: bigint) => ({ start, end });
  const at = 0x10000n;
  const inherited = { ranges: [range(at, 2n * at), range(2n * at, 3n * at)] };
  assertEquals(await extensionComplaints({ exit_signal: 0 }), []);
  assertEquals(await extensionComplaints({ exit_signal: 64 }), []);
  assertEquals(await extensionComplaints({ exit_signal: 0 }, undefined, 9), []);
  assertEquals(await extensionComplaints({ stop_unreported: true }, stop), []);
  assertEquals(await extensionComplaints({ inherited }), []);

  const stopless = "stop_unreported: is said of a process that is not stopped";
  assertEquals(await extensionComplaints({ exit_signal: 65 }), [
    "exit_signal: 65 is no signal",
  ]);
  assertEquals(await extensionComplaints({ stop_unreported: true }), [
    stopless,
  ]);
  assertEquals(
    await extensionComplaints({ stop_unreported: true }, undefined, 9),
    [stopless],
  );
  assertEquals(await extensionComplaints({ inherited }, undefined, 9), [
    "inherited: is said of a process that has ended, or is the root",
  ]);
  assertEquals(
    await extensionComplaints({
      inherited: {
        ranges: [range(at, at), range(1n, at), range(at - 4096n, 2n * at)],
      },
    }),
    [
      "inherited.ranges[0]: is empty",
      "inherited.ranges[1]: is not page aligned",
      "inherited.ranges[1]: does not come after the one before",
      "inherited.ranges[2]: does not come after the one before",
    ],
  );
  const locked = (flock: number) => ({ areas: [{ start: at, flock }] });
  assertEquals(await extensionComplaints(locked(1)), []);
  assertEquals(await extensionComplaints(locked(2)), []);
  for (const flock of [0, 3, 8, 2 ** 31]) {
    assertEquals(await extensionComplaints(locked(flock)), [
      `areas[0].flock: ${flock} is no operation of flock(2)`,
    ]);
  }
  const undone = (set: number, ...adjustments: number[]) => ({
    semaphore_undos: { sets: [{ set, adjustments }] },
  });
  assertEquals(await extensionComplaints(undone(5, 32767, 0, -32767)), []);
  for (const wrong of [undone(2 ** 31, 1), undone(5, 0, 32768)]) {
    assertEquals(await extensionComplaints(wrong), [
      "semaphore_undos.sets[0]: is no set, or no change of one",
    ]);
  }
  assertEquals(await extensionComplaints(undone(5, 1), undefined, 9), [
    "semaphore_undos: is said of a process that has ended",
  ]);
  const unseen = { continue_unreported: true };
  const still = "continue_unreported: is said of a process that does not run";
  assertEquals(await extensionComplaints(unseen), []);
  assertEquals(await extensionComplaints(unseen, stop), [still]);
  assertEquals(await extensionComplaints(unseen, undefined, 9), [still]);
  assertEquals(await extensionComplaints({ awaited: true }), []);
  assertEquals(await extensionComplaints({ awaited: true }, undefined, 9), [
    "awaited: is said of a process that has ended, or is the root",
  ]);
  assertEquals(await extensionComplaints({ parent_thread: ROOT }), [
    `parent_thread: ${ROOT} is no other thread of its parent`,
  ]);
  const ended_leader = { status: 7 << 8 };
  const twoThreads = ({ pstree }: MinimalImage) => pstree[0].threads.push(11);
  const alone = "ended_leader: is said of a process that has no other thread";
  assertEquals(await extensionComplaints({ ended_leader }), [alone]);
  assertEquals(await extensionComplaints({ ended_leader }, undefined, 9), [
    alone,
  ]);
  assertEquals(
    (await extensionComplaints({ ended_leader: { status: 9 } }, twoThreads))
      .filter((one) => one.startsWith("ended_leader")),
    ["ended_leader.status: 0x9 is not of exit(2)"],
  );
  const sharing = { shares_io_context: true, shares_semaphore_undo: true };
  assertEquals(await extensionComplaints(sharing), []);
  assertEquals(await extensionComplaints(sharing, undefined, 9), [
    "shares_io_context: is said of a process that has ended, or is the root",
    "shares_semaphore_undo: is said of a process that has ended, or is the " +
    "root",
  ]);
  const ended = { uid: 1, euid: 2, suid: 3, gid: 4, egid: 5, sgid: 6 };
  assertEquals(await extensionComplaints({ ended }, undefined, 9), []);
  assertEquals(await extensionComplaints({ ended }), [
    "ended: is said of a process that has not ended",
  ]);
  assertEquals(
    await extensionComplaints(
      { ended: { ...ended, suid: 0xffff_ffff } },
      undefined,
      9,
    ),
    ["ended.suid: 4294967295 is no id"],
  );
  const thread = { tid: 10 };
  assertEquals(await extensionComplaints({ threads: [thread] }), []);
  const wrong = "tid: 10 is there twice, or no thread of the process";
  assertEquals(await extensionComplaints({ threads: [thread, thread] }), [
    `threads[1].${wrong}`,
  ]);
  assertEquals(
    await extensionComplaints({ threads: [thread] }, undefined, 9),
    [`threads[0].${wrong}`],
  );
});

Deno.test("a tree deeper than the limit is refused, and soon", () => {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage(1);
    const length = 100_000;
    image.pstree = Array.from(
      { length },
      (_, i) => place(i + 1, i, i === length - 1 ? 7 : 5),
    );
    writeWithoutManifest(directory, image);
    const set = readImageSet(directory);
    assertThrows(() => validateImageSet(set), CkptError, "generations below");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
