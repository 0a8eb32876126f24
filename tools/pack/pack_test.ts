import { assert, assertEquals, assertThrows } from "@std/assert";
import { VERSION } from "../../lib/version.ts";
import { codeCache } from "./code_cache.ts";
import { pack } from "./pack.ts";

const root = `${import.meta.dirname}/../..`;
const deno = Deno.readFileSync(`${root}/node_modules/deno/deno`);
const stub = Deno.readFileSync(`${root}/c/build/pack/stub.bin`);
const none = new Uint8Array();

/** Says how it was started, as one line of JSON, and exits with code 7. */
const probe = `(() => {
  const { library, nofile } = ckptStart;
  const bytes = Deno.readFileSync("/proc/self/fd/" + library);
  const links = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return [name, Deno.readLinkSync("/proc/self/fd/" + name)];
    } catch {
      return [name, ""];
    }
  });
  const cloexec = ["3", library].map((fd) =>
    /^flags:.*02[0-7]{6}$/m.test(
      Deno.readTextFileSync("/proc/self/fdinfo/" + fd)));
  console.log(JSON.stringify({
    args: Deno.args,
    env: Deno.env.toObject(),
    cloexec,
    exec: Deno.execPath(),
    library: new TextDecoder().decode(bytes),
    nofile,
    memfds: links.filter(([, link]) => /^.memfd:(ckpt.js|lib)/.test(link))
      .map(([name, link]) => name + " " + link),
    cacheWrites: links.filter(([, link]) => link.includes("ckpt.cache-"))
      .map(([name]) => Deno.statSync("/proc/self/fd/" + name).size),
    standardInput: Deno.readLinkSync("/proc/self/fd/0"),
  }));
  Deno.exit(7);
})();`
  // Deno finds a script again by V8's hash of its text, which differs from
  // process to process for texts that are short (ckpt's is long).
  .padEnd(20_000);

interface Told {
  args: string[];
  env: Record<string, string>;
  cloexec: boolean[];
  exec: string;
  library: string;
  nofile: string;
  memfds: string[];
  /** Sizes of the files that SQLite has made beside the cache. */
  cacheWrites: number[];
  standardInput: string;
}

/** Runs `use` with the path of a packed probe. */
async function withProbe(
  use: (path: string, directory: string) => Promise<void>,
  cache: Uint8Array = none,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const text = new TextEncoder();
    const program = { text: text.encode(probe), cache };
    const file = pack(
      deno,
      stub,
      text.encode("the library"),
      [program, program, program],
    );
    await Deno.writeFile(`${directory}/probe`, file, { mode: 0o755 });
    await use(`${directory}/probe`, directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function ask(
  command: string,
  options: Deno.CommandOptions,
): Promise<Told> {
  const { code, stdout, stderr } = await new Deno.Command(command, options)
    .output();
  assertEquals(new TextDecoder().decode(stderr), "");
  assertEquals(code, 7);
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("a packed program gets its arguments as given", () =>
  withProbe(async (path) => {
    const many = Array.from({ length: 5000 }, (_, i) => `argument-${i}`);
    const lists = [
      [],
      ["--help"],
      ["-V"],
      ["dump", "--version"],
      ["--", "-A"],
      ["", "ö\n"],
    ];
    for (const args of [...lists, many]) {
      assertEquals((await ask(path, { args })).args, args);
    }
  }));

Deno.test("the version is told without running the program", () =>
  withProbe(async (path) => {
    const { code, stdout } = await new Deno.Command(path, {
      args: ["--version"],
    }).output();
    assertEquals([code, new TextDecoder().decode(stdout)], [
      0,
      `ckpt ${VERSION}\n`,
    ]);
  }));

Deno.test("a packed program finds its library and is named by its own path", () =>
  withProbe(async (path) => {
    const told = await ask(path, {});
    assertEquals(told.library, "the library");
    assertEquals(told.exec, path);
    assertEquals(told.memfds, [
      "3 /memfd:ckpt.js (deleted)",
      "4 /memfd:libckpt.so (deleted)",
    ]);
    assertEquals(told.cloexec, [true, true]);
  }));

Deno.test("dump and restore have programs of their own", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const saying = (name: string) => ({
      text: new TextEncoder().encode(`console.log("${name}")`),
      cache: none,
    });
    const programs = [
      saying("all"),
      saying("dump"),
      saying("restore"),
    ] as const;
    const path = `${directory}/packed`;
    await Deno.writeFile(path, pack(deno, stub, none, programs), {
      mode: 0o755,
    });
    for (
      const [args, expected] of [
        [[], "all"],
        [["dump"], "dump"],
        [["dump", "restore"], "dump"],
        [["restore", "-d"], "restore"],
        [["-v", "dump"], "all"],
        [["dumps"], "all"],
        [["check"], "all"],
      ] as const
    ) {
      const { stdout } = await new Deno.Command(path, { args: [...args] })
        .output();
      assertEquals(new TextDecoder().decode(stdout), `${expected}\n`);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("V8 takes what was compiled beforehand, and Deno stores nothing", async () => {
  const INDEX = 32768;
  await withProbe(async (path) => {
    const { cacheWrites } = await ask(path, {});
    assertEquals(cacheWrites.sort(), [0, INDEX]);
  }, codeCache(`${root}/node_modules/deno/deno`, stub, probe));
});

Deno.test("without a cache the program is compiled when it runs", () =>
  withProbe(async (path) => {
    const { cacheWrites } = await ask(path, {});
    assert(cacheWrites.some((size) => size > probe.length));
  }));

Deno.test("a packed program sees the environment as it was given", () =>
  withProbe(async (path) => {
    const full = {
      A: "1",
      DENO_DIR: "/x",
      DENO_V8_FLAGS: "--no-such-flag",
      HOME: "/home/of=someone",
      NODE_OPTIONS: "",
      Z: "",
    };
    const all: Record<string, string>[] = [{}, { A: "1" }, full];
    for (const env of all) {
      assertEquals((await ask(path, { clearEnv: true, env })).env, env);
    }
  }));

Deno.test("a packed program does not read the user's .npmrc", () =>
  withProbe(async (path, directory) => {
    await Deno.mkdir(`${directory}/.npmrc`);
    const told = await ask(path, { env: { HOME: directory } });
    assertEquals(told.env.HOME, directory);
  }));

Deno.test("a packed program leaves nothing in the home directory", () =>
  withProbe(async (path, directory) => {
    const home = `${directory}/home`;
    await Deno.mkdir(home);
    await ask(path, { env: { HOME: home, XDG_CACHE_HOME: home } });
    assertEquals([...Deno.readDirSync(home)], []);
  }));

Deno.test("a packed program learns the soft limit on open files", () =>
  withProbe(async (path) => {
    const args = ["-c", 'ulimit -Sn 77; exec "$0"', path];
    assertEquals((await ask("bash", { args })).nofile, "77");
  }));

Deno.test("a packed program runs with 64 descriptors and a small stack", () =>
  withProbe(async (path) => {
    const args = ["-c", 'ulimit -n 64; ulimit -s 512; exec "$0"', path];
    assertEquals((await ask("bash", { args })).nofile, "64");
  }));

Deno.test("a packed program never takes the place of a closed stream", () =>
  withProbe(async (path) => {
    const args = ["-c", 'exec "$0" <&-', path];
    const told = await ask("bash", { args });
    assertEquals(told.standardInput, "/dev/null");
    assertEquals(told.memfds.length, 2);
  }));

Deno.test("a packed program says that its directory is gone", () =>
  withProbe(async (path, directory) => {
    const gone = `${directory}/gone`;
    const script = 'mkdir "$1"; cd "$1"; rmdir "$1"; exec "$0"';
    const { code, stderr } = await new Deno.Command("bash", {
      args: ["-c", script, path, gone],
    }).output();
    assertEquals(code, 1);
    assertEquals(
      new TextDecoder().decode(stderr),
      "ckpt: cannot start: the current directory no longer exists; " +
        "change to one that does\n",
    );
  }));

Deno.test("a packed program takes what it may have, or says that its addresses are too few", () =>
  withProbe(async (path) => {
    const limited = (
      limit: string,
    ) => ["-c", `ulimit ${limit}; exec "$0"`, path];
    await ask("bash", {
      args: limited("-S -v 1000000 -d 1000000 -f 1 -l 0 -i 1 -q 0"),
    });
    const { code, stderr } = await new Deno.Command("bash", {
      args: limited("-v 1000000"),
    }).output();
    assertEquals(code, 1);
    assertEquals(
      new TextDecoder().decode(stderr),
      "ckpt: cannot start: the address space is limited to less than 40 GiB; " +
        "raise the limit (ulimit -v unlimited)\n",
    );
  }));

Deno.test("what cannot be packed is refused with the reason", () => {
  const program = { text: none, cache: none };
  const empty = [program, program, program] as const;
  const attempt = (change: (elf: DataView) => void) => {
    const copy = deno.slice();
    change(new DataView(copy.buffer));
    return () => pack(copy, stub, none, empty);
  };
  assertThrows(attempt((elf) => elf.setUint8(0, 0)), Error, "64-bit");
  assertThrows(
    attempt((elf) => elf.setUint16(16, 2, true)),
    Error,
    "position independent",
  );
  // The number of program headers: without the last one, the PT_NOTE.
  assertThrows(
    attempt((elf) => elf.setUint16(56, elf.getUint16(56, true) - 1, true)),
    Error,
    "PT_NOTE",
  );
  assertThrows(() => pack(deno, none, none, empty), Error, "stub");
});
