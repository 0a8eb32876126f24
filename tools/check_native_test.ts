import { assertEquals, assertStringIncludes } from "@std/assert";

const check = `${import.meta.dirname}/check_native.sh`;

async function run(command: string, args: string[]) {
  const { code, stderr } = await new Deno.Command(command, { args }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** Compiles `source` with the `options` and checks it as `kind`. */
async function verdict(
  kind: "agent" | "library",
  source: string,
  options: string[],
): Promise<{ code: number; stderr: string }> {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/a.c`, source);
    const output = `${directory}/a`;
    const args = ["-O2", "-o", output, `${directory}/a.c`, ...options];
    assertEquals(await run("gcc", args), { code: 0, stderr: "" });
    return await run(check, [kind, output]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const agent = (source: string, ...more: string[]) =>
  verdict("agent", source, [
    ...["-ffreestanding", "-fPIE", "-fvisibility=hidden", "-nostdlib"],
    ...["-static", "-Wl,--emit-relocs", "-fno-stack-protector", ...more],
  ]);

const library = (source: string) =>
  verdict("library", source, ["-shared", "-fPIC"]);

Deno.test("an agent that only refers to itself by distance passes", async () => {
  const source = `
    static const int table[] = { 1, 2, 3 };
    int pick(int i) { return table[i & 1]; }
    void _start(void) { __asm__("syscall" : : "a"(pick(1))); }`;
  assertEquals(await agent(source), { code: 0, stderr: "" });
});

Deno.test("an agent that stores an address is refused", async () => {
  const source = `
    static void one(void) {} static void two(void) { __asm__("nop"); }
    void (*volatile table[])(void) = { one, two };
    void _start(void) { table[0](); }`;
  const { code, stderr } = await agent(source);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "R_X86_64_64");
});

Deno.test("an agent that needs a function of libc is refused", async () => {
  const { code, stderr } = await agent(
    `void *memcpy(void *, const void *, unsigned long);
     void _start(void) { char b[512]; memcpy(b, (char *)1, 512);
       __asm__ volatile("" : : "r"(b) : "memory"); }`,
    "-fno-builtin",
    "-Wl,--unresolved-symbols=ignore-all",
  );
  assertEquals(code, 1);
  assertStringIncludes(stderr, "  memcpy\n");
});

Deno.test("a library that needs old symbols only passes", async () => {
  const source = `#include <unistd.h>
    int f(void) { return write(1, "", 0); }`;
  assertEquals(await library(source), { code: 0, stderr: "" });
});

Deno.test("a library that needs a newer libc is refused by symbol", async () => {
  const source = `int gettid(void); int f(void) { return gettid(); }`;
  const { code, stderr } = await library(source);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "gettid@GLIBC_2.30");
});
