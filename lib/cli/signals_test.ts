/** Signals, sent by the kernel to a ckpt that does nothing but wait for them. */
import { assertEquals, assertStringIncludes } from "@std/assert";

const PROGRAM = new URL("testing/waiting_program.ts", import.meta.url).pathname;

class Waiting implements AsyncDisposable {
  #child: Deno.ChildProcess;
  #lines: ReadableStreamDefaultReader<string>;
  #text = "";

  /** @param before shell commands that prepare the process */
  constructor(args: string[], before = ":") {
    this.#child = new Deno.Command("/bin/sh", {
      args: ["-c", `${before}; exec "$@"`, "sh", Deno.execPath(), "run"]
        .concat("--allow-all", "--no-check", PROGRAM, ...args),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  async line(): Promise<string> {
    while (!this.#text.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error(`ended after: ${this.#text}`);
      this.#text += value;
    }
    const end = this.#text.indexOf("\n");
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    return line;
  }

  send(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async end(): Promise<{ code: number; signal: string | null; error: string }> {
    const error = await new Response(this.#child.stderr).text();
    const { code, signal } = await this.#child.status;
    return { code, signal, error };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended, as it should.
    }
    await this.#child.status;
    await this.#lines.cancel();
    if (!this.#child.stderr.locked) await this.#child.stderr.cancel();
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.test(`${signal} ends a dump with exit code 7 and its name`, async () => {
    await using waiting = new Waiting(["dump", "1"]);
    assertEquals(await waiting.line(), "ready");
    waiting.send(signal);
    const { code, error } = await waiting.end();
    assertEquals(code, 7);
    assertStringIncludes(
      error,
      `ckpt dump: dumping task 1: ${signal}: asked ckpt to stop`,
    );
  });
}

Deno.test("a signal that was ignored from the start, as by nohup, stays ignored", async () => {
  await using waiting = new Waiting(["dump", "1"], "trap '' HUP");
  assertEquals(await waiting.line(), "ready");
  waiting.send("SIGHUP");
  waiting.send("SIGTERM");
  const { code, error } = await waiting.end();
  assertEquals(code, 7);
  assertStringIncludes(error, "SIGTERM: asked ckpt to stop");
});

Deno.test("a restore that waits is handed the signals, until it has enough", async () => {
  await using waiting = new Waiting(["restore"]);
  assertEquals(await waiting.line(), "ready");
  waiting.send("SIGTERM");
  assertEquals(await waiting.line(), "handed SIGTERM");
  assertEquals(await waiting.line(), "ready");
  waiting.send("SIGINT");
  const { code, error } = await waiting.end();
  assertEquals(code, 7);
  assertStringIncludes(error, "SIGINT: asked ckpt to stop");
});

Deno.test("a handler gets the further signals it asks for", async () => {
  await using waiting = new Waiting(["restore"]);
  assertEquals(await waiting.line(), "ready");
  waiting.send("SIGUSR2");
  assertEquals(await waiting.line(), "handed SIGUSR2");
  assertEquals(await waiting.line(), "ready");
  waiting.send("SIGUSR2");
  // No longer handled, it does what it does by default.
  assertEquals((await waiting.end()).signal, "SIGUSR2");
});
