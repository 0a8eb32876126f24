import { assertEquals, assertMatch } from "@std/assert";
import { S_IF, stat } from "../ffi/syscall.ts";
import type { DependedFile } from "./depended_files.ts";
import { FileWatch } from "./watch_files.ts";

function depended(path: string, content = true): DependedFile {
  const status = stat(path);
  const regular = (status.mode & S_IF.MT) === S_IF.REG;
  return {
    path,
    at: path,
    status,
    executed: false,
    written: true,
    content: content && regular,
  };
}

async function sh(script: string): Promise<void> {
  const { success } = await new Deno.Command("sh", { args: ["-ec", script] })
    .output();
  assertEquals(success, true);
}

/** What a watch tells after a script; file, log and directory d are watched. */
async function told(
  script: string,
  withFanotify: boolean,
): Promise<string[]> {
  const directory = await Deno.makeTempDir();
  const file = `${directory}/d/file`;
  const log = `${directory}/d/log`;
  try {
    await sh(`mkdir ${directory}/d; echo content > ${file}; : > ${log}`);
    using watch = new FileWatch(withFanotify);
    watch.add([depended(file), depended(`${directory}/d`)]);
    // What is before the beginning does not count.
    await sh(`echo before > ${directory}/new; cat ${directory}/new > ${file}`);
    watch.begin();
    watch.addNow([
      depended(file),
      depended(log, false),
      depended(`${directory}/d`),
    ]);
    await sh(`cd ${directory}; ${script}`);
    return watch.changes().map(({ path, why }) =>
      `${path.slice(directory.length)}: ${why}`
    ).sort();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

for (const withFanotify of [true, false]) {
  const how = withFanotify ? "fanotify" : "inotify";
  const by = withFanotify ? "( by task \\d+.*)" : "";

  Deno.test(`what does not matter to an image is not told (${how})`, async () => {
    assertEquals(
      await told("cat d/file; echo more >> d/log; : > d/other", withFanotify),
      [],
    );
  });

  for (
    const [script, ...expected] of [
      ["echo x >> d/file", `^/d/file: it was modified${by}$`],
      ["chmod 600 d/file", `^/d/file: its permissions, .* changed${by}$`],
      ["rm d/file", "^/d/file: it"],
      ["mv new d/file", "^/d/file: "],
      ["mv d/log d/log.1", `^/d/log: it was renamed${by}$`],
      [
        "mv d e",
        `^/d/file: it is not there any more$`,
        `^/d/log: it is not there any more$`,
        `^/d: it was renamed${by}$`,
      ],
    ]
  ) {
    Deno.test(`${script} is told (${how})`, async () => {
      const all = await told(script, withFanotify);
      assertEquals(all.length, expected.length, all.join("\n"));
      for (const [i, pattern] of expected.entries()) {
        assertMatch(all[i], new RegExp(pattern));
      }
    });
  }
}

Deno.test("a write through a mapping, of which no event tells, is seen", async () => {
  const all = await told(
    "python3 -c \"import mmap; f=open('d/file','r+b'); m=mmap.mmap(f.fileno(),0); m[0]=88; m.flush()\"",
    true,
  );
  assertEquals(all, ["/d/file: it was modified"]);
});

Deno.test("what ckpt itself does is not told", async () => {
  const file = await Deno.makeTempFile();
  try {
    using watch = new FileWatch();
    watch.add([depended(file)]);
    watch.begin();
    await Deno.chmod(file, 0o600);
    assertEquals(watch.changes(), []);
  } finally {
    await Deno.remove(file);
  }
});
