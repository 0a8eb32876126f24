import { assertEquals, assertObjectMatch } from "@std/assert";
import { readImageSet } from "./image_set.ts";
import { showAll, summarize } from "./show.ts";
import {
  endImage,
  minimalChild,
  minimalImage,
  writeTree,
  writeWithManifest,
} from "./testing/minimal_image.ts";

async function inImage(
  test: (set: ReturnType<typeof readImageSet>) => void,
) {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage();
    image.inventory.plugins_entry = { plugins: ["ckpt:tsc"] };
    await writeWithManifest(directory, image);
    test(readImageSet(directory));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the summary says who is in the image and how much memory", () =>
  inImage((set) => {
    assertObjectMatch(summarize(set), {
      ckpt_version: "0.0.0",
      needs: ["ckpt:tsc"],
      namespaces: {},
      open_files: 4,
      page_bytes: 5 * 4096,
      tasks: [{
        pid: 4242,
        ppid: 0,
        name: "tiny",
        state: "alive",
        program: "/opt/demo/tiny",
        directory: "/srv",
        threads: 1,
        descriptors: 3,
        areas: 6,
        mapped_bytes: (3 + 6 + 2 + 33) * 4096,
        stored_bytes: 5 * 4096,
      }],
    });
  }));

Deno.test("the summary counts the namespaces that the dumper was not in", () => {
  const image = minimalImage();
  const child = minimalChild(11, { ppid: 4242, pgid: 4242, sid: 4242 });
  Object.assign(image.ids, { pid_ns_id: 9, mnt_ns_id: 10 });
  Object.assign(child.ids, { pid_ns_id: 9, mnt_ns_id: 11, net_ns_id: 0 });
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeTree(directory, [image, child]);
    assertEquals(summarize(readImageSet(directory)).namespaces, {
      mnt: 2,
      pid: 1,
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("the summary tells how processes ended, and what stopped them", () => {
  const child = (pid: number) =>
    minimalChild(pid, { ppid: 4242, pgid: 4242, sid: 4242 });
  const [exited, killed, stopped, unsaid] = [11, 12, 13, 14].map(child);
  endImage(exited, 0x2a00);
  endImage(killed, 0x8b);
  stopped.core.tc!.task_state = 3;
  stopped.core.tc!.stop_signo = 20;
  unsaid.core.tc!.task_state = 3;
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const images = [minimalImage(), exited, killed, stopped, unsaid];
    writeTree(directory, images);
    const { tasks } = summarize(readImageSet(directory));
    const none = { threads: 0, descriptors: 0, areas: 0, stored_bytes: 0 };
    const all = { threads: 1, descriptors: 3, areas: 6 };
    assertObjectMatch({ tasks }, {
      tasks: [
        { pid: 4242, state: "alive", ...all },
        { pid: 11, ppid: 4242, state: "dead", ended: { exit: 42 }, ...none },
        { pid: 12, state: "dead", ended: { signal: 11 }, ...none },
        { pid: 13, state: "stopped", stopped_by: 20, ...all },
        { pid: 14, state: "stopped", stopped_by: 19, ...all },
      ],
    });
    assertEquals([tasks[0].ended, tasks[0].stopped_by], [undefined, undefined]);
    assertEquals(tasks[1].program, undefined);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("all of an image can be shown as JSON", () =>
  inImage((set) => {
    const files = JSON.parse(JSON.stringify([...showAll(set)]));
    const entries = (name: string) =>
      files.find((file: { name: string }) => file.name === name).entries;
    assertEquals(entries("pages-1.img"), undefined);
    assertEquals(entries("pagemap-4242.img").slice(0, 2), [
      { pages_id: 1 },
      { vaddr: "4198400", compat_nr_pages: 0, flags: 4, nr_pages: "1" },
    ]);
    assertEquals(entries("inventory.img")[0].lsmtype, "NO_LSM");
    assertEquals(entries("fdinfo-2.img")[1].type, "REG");
    assertEquals(entries("fs-4242.img"), [{
      cwd_id: 3,
      root_id: 4,
      umask: 18,
    }]);
  }));
