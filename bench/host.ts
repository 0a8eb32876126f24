/** Speaks with programs/host.c, which starts, times and ends all other processes. */

/** What one run of a tool took. */
export interface Run {
  /** From before fork to after wait, milliseconds. */
  wall: number;
  /** ru_maxrss of the tool and the children it waited for, bytes. */
  peak: number;
  /** Status of wait(2); 0 is success. */
  status: number;
  /** Processor time in user mode and in the kernel, milliseconds. */
  user: number;
  system: number;
}

export class Host implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #received = "";

  private constructor(executable: string, directories: string[]) {
    this.#process = new Deno.Command(executable, {
      args: directories,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#output = this.#process.stdout
      .pipeThrough(new TextDecoderStream()).getReader();
  }

  /**
   * @param directories what the host removes at its end, however this ends
   * @throws Error when the host cannot make its mount namespace (root only)
   */
  static async start(executable: string, directories: string[]): Promise<Host> {
    const host = new Host(executable, directories);
    const line = await host.#line();
    if (line === "ready") return host;
    await host[Symbol.asyncDispose]();
    throw new Error(`bench needs root: ${line}`);
  }

  /** Starts a program in its own session; returns its pid. */
  async program(log: string, command: string[]): Promise<number> {
    return (await this.#ask("pid", "start", log, ...command))[0];
  }

  /** Runs a tool to its end. */
  async run(log: string, command: string[]): Promise<Run> {
    const [wall, peak, status, user, system] = await this.#ask(
      "ran",
      "run",
      log,
      ...command,
    );
    return {
      wall: wall / 1e6,
      peak: peak * 1024,
      status,
      user: user / 1e3,
      system: system / 1e3,
    };
  }

  /** Waits for the end of a program that something else ends. */
  async reap(pid: number): Promise<void> {
    await this.#ask("ended", "reap", String(pid));
  }

  /** Kills and reaps a program. */
  async kill(pid: number): Promise<void> {
    await this.#ask("ended", "kill", String(pid));
  }

  /** Removes a file as the tools see it: `/run` is not that of this process. */
  async forget(file: string): Promise<void> {
    await this.#ask("forgot", "forget", file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close();
    await this.#output.cancel();
    await this.#process.status;
  }

  async #ask(answer: string, ...fields: string[]): Promise<number[]> {
    await this.#input.write(
      new TextEncoder().encode(`${fields.join("\t")}\n`),
    );
    const line = await this.#line();
    const [word, ...numbers] = line.split(" ");
    if (word !== answer) throw new Error(`${fields.join(" ")}: ${line}`);
    return numbers.map(Number);
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf("\n");
      if (end >= 0) {
        const line = this.#received.slice(0, end);
        this.#received = this.#received.slice(end + 1);
        return line;
      }
      const { value, done } = await this.#output.read();
      if (done) throw new Error("the host of the benchmark has ended");
      this.#received += value;
    }
  }
}
