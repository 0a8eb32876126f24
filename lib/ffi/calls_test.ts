import { assert, assertEquals } from "@std/assert";
import { Calls, Slots, Texts } from "./calls.ts";
import { AT_FDCWD, O } from "./syscall.ts";
import { ECANCELED, ENOENT } from "./errno.ts";

Deno.test("calls of thousands of rounds are all made, with what lies in their slots", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const rounds = 3000;
    const names = new Slots(64, rounds);
    const content = new Slots(8, rounds);
    const read = new Slots(8, rounds);
    const lengths = new Slots(8, rounds);
    for (let i = 0; i < rounds; i++) {
      names.setText(i, `${directory}/${i}`);
      content.view.setUint32(8 * i, i, true);
      lengths.view.setBigUint64(8 * i, BigInt(4 + i % 3), true);
    }
    const calls = new Calls();
    const flags = O.RDWR | O.CREAT | O.EXCL | O.CLOEXEC;
    const fd = calls.add("openat", [AT_FDCWD, { slots: names }, flags, 0o600]);
    const result = { result: fd };
    const written = calls.add("pwrite64", [
      result,
      { slots: content },
      { loaded: lengths },
      { base: 100, step: 1 },
    ]);
    calls.add("pread64", [
      result,
      { slots: read },
      8,
      { base: 100, step: 1 },
    ]);
    calls.add("close", [result]);
    calls.run(rounds);
    for (let i = 0; i < rounds; i++) {
      assertEquals(calls.result(i, written), 4 + i % 3);
      assertEquals(read.view.getUint32(8 * i, true), i);
      assertEquals(Deno.statSync(`${directory}/${i}`).size, 104 + i % 3 + i);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("calls that were begun are made to the end, also when their process is killed", async () => {
  const directory = Deno.makeTempDirSync();
  const rounds = 200;
  const script = `
    const { Calls, Slots } = await import("${new URL(
    "./calls.ts",
    import.meta.url,
  )}");
    const names = new Slots(4096, ${rounds});
    for (let i = 0; i < ${rounds}; i++) names.setText(i, "${directory}/" + i);
    const calls = new Calls();
    calls.add("mkdirat", [-100, { slots: names }, 0o700]);
    calls.add("poll", [0, 0, 5]);
    calls.runToTheEnd(${rounds});`;
  const isThere = async (name: number) => {
    const end = performance.now() + 60_000;
    for (;;) {
      try {
        return Deno.statSync(`${directory}/${name}`).isDirectory;
      } catch (error) {
        if (performance.now() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  };
  try {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-check", script],
      cwd: new URL("../..", import.meta.url),
    }).spawn();
    assert(await isThere(2));
    child.kill("SIGKILL");
    assertEquals((await child.status).signal, "SIGKILL");
    assert(await isThere(rounds - 1));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a call that needs a failed one is not made", () => {
  const names = new Slots(64, 2);
  names.setText(0, "/not/there");
  names.setText(1, "/");
  const calls = new Calls();
  const fd = calls.add("openat", [
    AT_FDCWD,
    { slots: names },
    O.PATH | O.CLOEXEC,
    0,
  ]);
  const after = calls.add("getpid", [], fd);
  const closed = calls.add("close", [{ result: fd }]);
  calls.run(2);
  assertEquals(
    [fd, after, closed].map((call) => calls.result(0, call)),
    [-ENOENT, -ECANCELED, -ECANCELED],
  );
  assertEquals(calls.result(1, after), Deno.pid);
  assertEquals(calls.result(1, closed), 0);
});

Deno.test("answers that are the same have the same numbers, also later", () => {
  const paths = ["/", "/proc", "/", "/nonexistent", "/proc", "/nothing"];
  const names = new Texts(paths);
  // The mode of struct stat, and what lies before it.
  const statuses = new Slots(144, paths.length);
  const calls = new Calls();
  calls.add("newfstatat", [
    AT_FDCWD,
    { loaded: names.pointers },
    { slots: statuses },
    0,
  ]);
  const fds = Slots.of(paths.map((_, i) => i));
  const question = 1_000_000;
  const numbers = (answered = new Uint32Array(paths.length)) => {
    statuses.bytes.fill(0);
    calls.run(paths.length);
    return calls.numbers(question, statuses, fds, answered);
  };
  const answered = new Uint32Array(paths.length);
  const first = numbers(answered);
  assertEquals(first, answered);
  const alike = [0, 1, 0, 3, 1, 3];
  assertEquals([...first].map((number) => first.indexOf(number)), alike);
  assertEquals(numbers(), first);
  // What came before counts.
  const second = numbers(answered);
  assertEquals(second, answered);
  assertEquals([...second].map((number) => second.indexOf(number)), alike);
  assertEquals(first.filter((number) => second.includes(number)).length, 0);
});

Deno.test("thousands of answers are told apart", () => {
  const count = 5000;
  const slots = new Slots(8, count);
  const fds = Slots.of(Array.from({ length: count }, (_, i) => i));
  const calls = new Calls();
  calls.add("getpid", []);
  calls.run(count);
  const numbers = (from: number) => {
    for (let i = 0; i < count; i++) slots.setNumber(i, (from + i) % count);
    const answered = new Uint32Array(count);
    return calls.numbers(1_000_001, slots, fds, answered);
  };
  const first = numbers(0);
  assertEquals(new Set(first).size, count);
  const turned = numbers(1);
  assertEquals([...turned], [...first.slice(1), first[0]]);
});
