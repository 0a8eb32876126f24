/** A task of its own that executes programs, for tests of what restores one. */
import { AgentProcess } from "../../ffi/agent_process.ts";
import type { Outcome, Program } from "../../ffi/program.ts";
import { parseStatus, type Status } from "../../proc/status.ts";

/** A pid that nothing has: the agent has to be told which one to take. */
export function freePid(): number {
  const most = Number(Deno.readTextFileSync("/proc/sys/kernel/pid_max"));
  for (;;) {
    // The upper half: the kernel comes there last.
    const pid = Math.floor(most * (1 + Math.random()) / 2);
    try {
      Deno.statSync(`/proc/${pid}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return pid;
      throw error;
    }
  }
}

export class AgentTask implements Disposable {
  readonly #process: AgentProcess;
  readonly #stack: bigint;

  constructor() {
    this.#process = AgentProcess.start({
      pid: freePid(),
      parent: "ckpt",
      keep: [],
      openFiles: [1024n, 1024n],
    });
    const maps = Deno.readTextFileSync(`/proc/${this.pid}/maps`);
    const found = /^([0-9a-f]+)-[0-9a-f]+ .*\[stack\]$/m.exec(maps);
    if (found === null) throw new Error("the agent has no stack");
    this.#stack = BigInt(`0x${found[1]}`);
  }

  get pid(): number {
    return this.#process.pid;
  }

  get status(): Status {
    return parseStatus(Deno.readTextFileSync(`/proc/${this.pid}/status`));
  }

  /** In the lower half of its stack, of which it needs little itself. */
  run(program: Program): Outcome {
    const HALF = 65536;
    if (program.size > HALF) throw new Error("the program is too large");
    const thread = {
      tid: this.pid,
      stack: this.#stack + BigInt(HALF) + 16384n,
    };
    this.#process.load(thread, program, this.#stack);
    this.#process.resume(thread);
    this.#process.wait(thread, program, this.#stack);
    return this.#process.outcome(program, this.#stack);
  }

  read(address: bigint, length: number): DataView {
    return new DataView(this.#process.memory.read(address, length).buffer);
  }

  write(address: bigint, bytes: Uint8Array<ArrayBuffer>): void {
    this.#process.memory.write(address, bytes);
  }

  /** Memory of the task that no program uses; page-aligned. */
  get scratch(): bigint {
    return this.#stack + 98304n;
  }

  [Symbol.dispose](): void {
    this.#process[Symbol.dispose]();
  }
}
