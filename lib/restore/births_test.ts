import { assert, assertEquals } from "@std/assert";
import { syscall } from "../ffi/syscall.ts";
import {
  endImage,
  type ImagePart,
  minimalChild,
  type MinimalImage,
  minimalImage,
} from "../image/testing/minimal_image.ts";
import type { Step } from "../task/births.ts";
import { type Births, planBirthsOf } from "./births.ts";
import { withTree } from "./testing/tree_images.ts";

const ROOT = 4242;
/** A session and a group of the outside. */
const SHELL = 77;

function root(sid = ROOT, pgid = ROOT): MinimalImage {
  const image = minimalImage(ROOT);
  Object.assign(image.pstree[0], { sid, pgid });
  return image;
}

function child(
  pid: number,
  { ppid = ROOT, sid = ROOT, pgid = sid }: {
    ppid?: number;
    sid?: number;
    pgid?: number;
  } = {},
  change: (image: MinimalImage) => void = () => {},
): MinimalImage {
  const image = minimalChild(pid, { ppid, sid, pgid });
  change(image);
  return image;
}

/** Executes another program, so that no memory is inherited. */
function another(image: MinimalImage): void {
  image.mm.exe_file_id = 2;
}

function plan(
  images: MinimalImage[],
  more: ImagePart[] = [],
): Promise<Births> {
  return withTree(images, planBirthsOf, more);
}

/** Short: "4242 fork 11". */
function words(steps: readonly Step[]): string[] {
  return steps.map((step) => {
    const what = step.kind === "fork"
      ? ` ${step.child}${step.role === "helper" ? " helper" : ""}`
      : step.kind === "setpgid"
      ? ` ${step.group}`
      : step.kind === "reap"
      ? ` ${step.child}`
      : step.kind === "subreaper"
      ? ` ${step.on ? "on" : "off"}`
      : "";
    return `${step.by} ${step.kind}${what}`;
  });
}

Deno.test("one process leads its session, then gets its memory", async () => {
  const births = await plan([root()]);
  assertEquals(births.reasons, []);
  assertEquals(words(births.steps), [`${ROOT} setsid`, `${ROOT} memory`]);
});

Deno.test("who has executed another program is born before the memory, heirs with it", async () => {
  const births = await plan([
    root(),
    child(11, {}, another),
    child(12),
    child(13, {}, (image) => endImage(image, 0)),
  ]);
  assertEquals(births.reasons, []);
  assertEquals([...births.inheriting], [12]);
  assertEquals(words(births.steps), [
    "4242 setsid",
    "4242 fork 11",
    "4242 fork 13",
    "4242 memory",
    "4242 fork 12",
    "11 memory",
    "12 memory",
    "13 die",
  ]);
});

Deno.test("a job of a shell stays in the session and group of ckpt", async () => {
  for (const pgid of [SHELL, ROOT]) {
    const births = await plan([
      root(SHELL, pgid),
      // In the group of the root, in one of its own, in that of its brother.
      child(11, { sid: SHELL, pgid }, another),
      child(12, { sid: SHELL, pgid: 12 }, another),
      child(13, { sid: SHELL, pgid: 12 }, another),
      // A session of its own.
      child(14, { sid: 14 }, another),
    ]);
    assertEquals(births.reasons, []);
    const steps = words(births.steps);
    assertEquals(
      steps.filter((step) => /setsid|setpgid/.test(step)),
      ["14 setsid", "12 setpgid 12", "13 setpgid 12"],
    );
    assertEquals(
      births.steps.some((step) =>
        step.kind === "fork" && step.role === "helper"
      ),
      false,
    );
  }
});

Deno.test("a group of the shell's that is not the root's gets a helper that leads it", async () => {
  const births = await plan([
    root(SHELL, ROOT),
    child(11, { sid: SHELL, pgid: 66 }, another),
  ]);
  assertEquals(births.reasons, []);
  assertEquals(words(births.steps), [
    "4242 fork 11",
    "11 fork 66 helper",
    "66 setpgid 66",
    "11 setpgid 66",
    "66 end",
    "11 reap 66",
    "4242 memory",
    "11 memory",
  ]);
});

Deno.test("ids of threads cannot be those of sessions and groups", async () => {
  const { reasons, steps } = await plan([
    root(),
    child(11, {}, (image) => image.pstree[0].threads.push(1100)),
    child(12, { pgid: 1100 }),
  ], [["core", 1100, { ...child(1100).core, tc: undefined }]]);
  assertEquals(steps, []);
  assertEquals(reasons.map(({ object, why }) => `${object}: ${why}`), [
    "process 12: its group 1100 cannot be: it is the id of a thread",
  ]);
});

/** An orphan: in the session of its brother, who must fork it. */
function withOrphan(change: (orphan: MinimalImage) => void): MinimalImage[] {
  return [
    root(),
    child(11, { sid: 11 }, another),
    child(12, { sid: 11 }, (image) => {
      another(image);
      change(image);
    }),
  ];
}

Deno.test("a helper by which an orphan is born has a pid that is free", async () => {
  const { reasons, steps } = await plan(withOrphan(() => {}));
  assertEquals(reasons, []);
  const [helper] = steps.flatMap((step) =>
    step.kind === "fork" && step.role === "helper" ? [step] : []
  );
  assertEquals(helper.by, 11);
  assert(helper.child >= 1000 && helper.child !== ROOT);
  let exists = true;
  try {
    syscall("kill", BigInt(helper.child), 0n);
  } catch {
    exists = false;
  }
  assertEquals(exists, false);
  assert(words(steps).includes(`${helper.child} fork 12`));
});

Deno.test("what an orphan shares with its parent would be lost, and is refused", async () => {
  const { reasons } = await plan(withOrphan(({ ids }) => {
    ids.vm_id = 2;
    ids.sighand_id = 2;
    ids.files_id = 2;
    ids.fs_id = 2;
  }));
  const why = (what: string) =>
    `it shares its ${what} with process ${ROOT}, but cannot be born from one ` +
    "that has them; that is not supported yet";
  assertEquals(
    reasons,
    ["memory", "signal actions", "descriptors", "directories and umask"]
      .map((what) => ({ object: "process 12", why: why(what) })),
  );
});

Deno.test("so are an I/O context and semaphore undos", async () => {
  const extension = {
    threads: [],
    areas: [],
    cgroups: [],
    shares_io_context: true,
    shares_semaphore_undo: true,
  };
  const { reasons } = await plan(withOrphan(() => {}), [
    ["ckpt-task", 11, extension],
    ["ckpt-task", 12, extension],
  ]);
  assertEquals(
    reasons.map(({ object, why }) => `${object}: ${why}`),
    ["I/O context", "list of semaphore undos"].map((what) =>
      `process 12: it shares its ${what} with its parent, but cannot be born ` +
      "from it; that is not supported yet"
    ),
  );
});

Deno.test("what is shared is shared along births only", async () => {
  const shared = (number: number) => (image: MinimalImage) => {
    image.ids.vm_id = number;
    image.ids.files_id = number;
  };
  // A chain of three, two brothers without their parent, and two cousins.
  const chain = [
    root(),
    child(11, {}, shared(2)),
    child(12, { ppid: 11 }, shared(2)),
  ];
  assertEquals((await plan(chain)).reasons, []);
  const brothers = [root(), child(11, {}, shared(9)), child(12, {}, shared(9))];
  assertEquals((await plan(brothers)).reasons, []);
  const cousins = [
    root(),
    child(11),
    child(12, {}, shared(9)),
    child(13, { ppid: 11 }, shared(9)),
  ];
  const { reasons } = await plan(cousins);
  assertEquals(reasons.map(({ object }) => object), [
    "process 13",
    "process 13",
  ]);
});

Deno.test("a child that would be told of the end of a leader that has ended is refused", async () => {
  const THREAD = 21;
  const nothing = { threads: [], areas: [], cgroups: [] };
  const rootWithThread = root();
  rootWithThread.pstree[0].threads.push(THREAD);
  const told = (image: MinimalImage) => {
    image.core.thread_core!.pdeath_sig = 9;
  };
  const reasonsOf = async (
    extension: { parent_thread?: number },
    change: (image: MinimalImage) => void,
  ) => {
    const { reasons } = await plan([rootWithThread, child(11, {}, change)], [
      ["core", THREAD, minimalImage(ROOT).core],
      ["ckpt-task", ROOT, { ...nothing, ended_leader: { status: 0 } }],
      ["ckpt-task", 11, { ...nothing, ...extension }],
    ]);
    return reasons.map(({ object }) => object);
  };
  assertEquals(await reasonsOf({ parent_thread: THREAD }, told), []);
  assertEquals(await reasonsOf({}, () => {}), []);
  assertEquals(await reasonsOf({}, told), ["process 11"]);
});
