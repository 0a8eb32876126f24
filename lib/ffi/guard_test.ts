import { assertEquals, assertThrows } from "@std/assert";
import { listDescriptors } from "../proc/read.ts";
import { Guard } from "./guard.ts";
import { SyscallError } from "./syscall.ts";

function read(path: string): string {
  return Deno.readTextFileSync(path);
}

function files(): { path: string; text: string }[] {
  return ["FROZEN", "0"].map((text) => ({
    path: Deno.makeTempFileSync(),
    text,
  }));
}

Deno.test("a guard that is ended writes nothing, and leaves nothing", () => {
  const orders = files();
  const before = listDescriptors(Deno.pid).length;
  for (let i = 0; i < 20; i++) {
    using guard = Guard.start(orders);
    guard.end();
  }
  assertEquals(listDescriptors(Deno.pid).length, before);
  assertEquals(orders.map(({ path }) => read(path)), ["", ""]);
  for (const { path } of orders) Deno.removeSync(path);
});

/** Lets another process start a guard, and kills it. */
async function killMaker(
  orders: readonly unknown[],
  meanwhile: () => void = () => {},
): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--no-check",
      `import { Guard } from "${new URL("guard.ts", import.meta.url)}";
Guard.start(${JSON.stringify(orders)});
console.log("started");
setTimeout(() => {}, 60_000);`,
    ],
    stdout: "piped",
  }).spawn();
  await child.stdout.pipeThrough(new TextDecoderStream()).getReader().read();
  meanwhile();
  child.kill("SIGKILL");
  await child.status;
}

Deno.test("a guard carries its orders out when its maker is killed", async () => {
  const orders = files();
  await killMaker(orders, () => {
    assertEquals(orders.map(({ path }) => read(path)), ["", ""]);
  });
  for (const { path, text } of orders) {
    while (read(path) === "") await new Promise((done) => setTimeout(done, 1));
    assertEquals(read(path), text);
    Deno.removeSync(path);
  }
});

Deno.test("a guard removes names when its maker is killed", async () => {
  const path = Deno.makeTempDirSync();
  Deno.mkdirSync(`${path}/made`);
  for (const name of ["made/file", "kept"]) {
    Deno.writeTextFileSync(`${path}/${name}`, "");
  }
  const orders = [
    { path, remove: "made/file", isDirectory: false },
    { path, remove: "never-made", isDirectory: false },
    { path, remove: "made", isDirectory: true },
  ];
  await killMaker(orders);
  const names = () => [...Deno.readDirSync(path)].map(({ name }) => name);
  while (names().includes("made")) {
    await new Promise((done) => setTimeout(done, 1));
  }
  assertEquals(names(), ["kept"]);
  Deno.removeSync(path, { recursive: true });
});

Deno.test("a file that cannot be opened is an error, and nothing stays open", () => {
  const [order] = files();
  const before = listDescriptors(Deno.pid).length;
  assertThrows(
    () => Guard.start([order, { path: "/no/such/file", text: "1" }]),
    SyscallError,
  );
  assertEquals(listDescriptors(Deno.pid).length, before);
  Deno.removeSync(order.path);
});
