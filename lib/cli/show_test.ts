/** `ckpt show`, on images as the image layer writes them. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  minimalImage,
  writeWithManifest,
} from "../image/testing/minimal_image.ts";
import type { ImageSummary, TaskSummary } from "../image/show.ts";
import { formatBytes } from "./format_bytes.ts";
import { renderSummary, show } from "./show.ts";

const TASK: TaskSummary = {
  pid: 4242,
  ppid: 0,
  pgid: 4242,
  sid: 4242,
  name: "evil\x1b[2J",
  state: "alive",
  program: "/usr/bin/python3.11",
  directory: "/",
  threads: 12,
  descriptors: 3,
  areas: 70,
  mapped_bytes: 5 << 20,
  stored_bytes: 8192,
};

const SUMMARY: ImageSummary = {
  directory: "/images",
  ckpt_version: "0.1.0",
  created: "2026-01-02T03:04:05.000Z",
  run_id: undefined,
  needs: ["something"],
  namespaces: { mnt: 2, pid: 1 },
  tasks: [TASK],
  open_files: 3,
  image_bytes: 20480,
  page_bytes: 8192,
};

function child(pid: number, ppid: number, more: Partial<TaskSummary> = {}) {
  return { ...TASK, pid, ppid, name: `n${pid}`, ...more };
}

Deno.test("a summary for people has a line for every process, indented as children, and no escapes of the program's", () => {
  const dead = { state: "dead", program: undefined } as const;
  assertEquals(
    renderSummary({
      ...SUMMARY,
      links: ["/var/spool/link_remap.1"],
      snapshots: [{ subvolume: "/srv", snapshot: "/srv.ckpt-snapshot.1" }],
      tasks: [
        TASK,
        child(7, 4242),
        child(9, 4242, { ...dead, ended: { exit: 3 } }),
        child(8, 7, { state: "stopped", stopped_by: 20 }),
        child(10, 7, { ...dead, ended: { signal: 11 } }),
      ],
    }),
    `/images: an image made by ckpt 0.1.0, 2026-01-02T03:04:05.000Z
20.0 KiB, 8.0 KiB of it pages; 3 open files
needs something
namespaces of its own: mnt (2), pid
link until ckpt clean: /var/spool/link_remap.1
snapshot of /srv until ckpt clean: /srv.ckpt-snapshot.1

 PID  PPID  PGID   SID  STATE               THREADS  FDS  AREAS   MAPPED   STORED  NAME         PROGRAM
4242     0  4242  4242  alive                    12    3     70  5.0 MiB  8.0 KiB  evil\\x1b[2J  /usr/bin/python3.11
   7  4242  4242  4242  alive                    12    3     70  5.0 MiB  8.0 KiB    n7         /usr/bin/python3.11
   8     7  4242  4242  stopped by SIGTSTP       12    3     70  5.0 MiB  8.0 KiB      n8       /usr/bin/python3.11
  10     7  4242  4242  killed by SIGSEGV        12    3     70  5.0 MiB  8.0 KiB      n10      -
   9  4242  4242  4242  exited with 3            12    3     70  5.0 MiB  8.0 KiB    n9         -
`,
  );
});

function names(tasks: TaskSummary[]): string[] {
  const lines = renderSummary({ ...SUMMARY, tasks }).split("\n").slice(4);
  const [title, ...rows] = lines.filter((line) => line !== "");
  const at = title.indexOf("NAME");
  const end = title.indexOf("PROGRAM");
  return rows.map((row) => row.slice(at, end).trimEnd());
}

Deno.test("a long chain of processes stays readable, and a thousand are no matter", () => {
  const chain = Array.from(
    { length: 1000 },
    (_, i) => child(i + 1, i),
  );
  const shown = names(chain);
  assertEquals(shown.length, 1000);
  assertEquals(shown[3], "      n4");
  assertEquals(Math.max(...shown.map((name) => name.lastIndexOf(" ") + 1)), 40);
});

Deno.test("processes of an image that is no tree are shown, each once", () => {
  assertEquals(
    names([child(1, 2), child(2, 1), child(3, 9), child(3, 3), child(4, 3)]),
    ["n3", "  n3", "    n4", "n1", "n2"],
  );
});

Deno.test("bytes are told in units that leave a short number", () => {
  assertEquals(
    [0, 1023, 1024, 1048575, 1048576, 1.5 * 2 ** 30, 2 ** 70].map(formatBytes),
    ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB", "1.5 GiB", "1024.0 EiB"],
  );
});

Deno.test("an image is shown to people, and to programs with every file", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    await writeWithManifest(directory, minimalImage(4242));
    const text = await show({ imagesDirectory: directory, json: false });
    assertStringIncludes(text, `${directory}: an image made by ckpt `);
    assertStringIncludes(text, "\n4242 ");

    const json = await show({ imagesDirectory: directory, json: true });
    const { result } = JSON.parse(json);
    assertEquals(result.directory, directory);
    assertEquals(result.tasks.length, 1);
    const core = result.files.find((f: { name: string }) =>
      f.name === "core-4242.img"
    );
    assertEquals(core.entries.length, 1);

    assertEquals(result.tasks[0].state, "alive");

    // A damaged file is told, and nothing of the others is printed.
    Deno.truncateSync(`${directory}/core-4242.img`, 10);
    const error = await assertRejects(
      () => show({ imagesDirectory: directory, json: true }),
      CkptError,
    );
    assertStringIncludes(error.message, "core-4242.img");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
