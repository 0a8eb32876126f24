/**
 * A process that traces tasks in ckpt's stead, and puts them back should ckpt
 * be killed (c/lib/tracer.c). For tasks that cannot put themselves back, because
 * something has to be off while calls are made in them: seccomp filters, syscall
 * user dispatch. Every call costs two switches between processes more.
 */
import { checked } from "./cause.ts";
import { callBy, library } from "./library.ts";
import { addressOf } from "./syscall.ts";
import { traceAs } from "./tracer_pid.ts";

const MOST_ARGUMENTS = 8;

export class LastingTracer implements Disposable {
  #over = false;
  #kept = false;

  private constructor(
    readonly pid: number,
    readonly address: bigint,
    readonly giveBack: () => void,
  ) {}

  /**
   * From now on, until its end, it makes all calls of ptrace(2) for a dump.
   *
   * @throws CkptError when there is no process to be had
   */
  static start(): LastingTracer {
    const pid = new Int32Array(1);
    const { ckpt_start_tracer, ckpt_by_tracer } = library("tracer");
    const address = checked(
      ckpt_start_tracer(new Uint8Array(pid.buffer)),
      "starting a tracer",
    );
    traceAs(pid[0]);
    const words = new BigUint64Array(MOST_ARGUMENTS);
    const encoded = new Uint8Array(words.buffer);
    const giveBack = callBy(["dump", "agent"], (call) => (...args) => {
      args.forEach((argument, i) => {
        words[i] = argument instanceof Uint8Array
          ? addressOf(argument as Uint8Array<ArrayBuffer>)
          : BigInt.asUintN(64, BigInt(argument as number | bigint));
      });
      return ckpt_by_tracer(address, call, encoded);
    });
    return new LastingTracer(pid[0], address, giveBack);
  }

  /** Ends it; no task may be traced any more. */
  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.giveBack();
    traceAs(Deno.pid);
    checked(library("tracer").ckpt_end_tracer(this.address), "ending a tracer");
  }

  /** It stays until {@link end}, beyond the scope that it belongs to. */
  keep(): void {
    this.#kept = true;
  }

  [Symbol.dispose](): void {
    if (!this.#kept) this.end();
  }
}
