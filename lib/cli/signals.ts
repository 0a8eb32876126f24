/**
 * Catches the signals that ask ckpt to stop. Installed for dump and restore
 * only, because Deno starts machinery of its own for the first listener.
 */
import { CkptError, EXIT } from "../error.ts";
import { addressOf, syscall } from "../ffi/syscall.ts";

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** signal(7), for the bits of SigIgn; x86-64 and arm64 agree. */
const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

const SIGCHLD = 17n;
const SIGCHLD_BIT = 1n << (SIGCHLD - 1n);

type Handler = (signal: Deno.Signal) => void;

export class StopSignals implements Disposable {
  #controller = new AbortController();
  #installed = new Map<Deno.Signal, () => void>();
  #handler: Handler | undefined;
  #action: string;

  /** @param action what an error says was being done */
  constructor(action: string) {
    this.#action = action;
    const ignored = ignoredSignals();
    if ((ignored & SIGCHLD_BIT) !== 0n) heedChildren();
    for (const signal of STOP_SIGNALS) {
      // nohup(1), and shells for background jobs, have them ignored: so be it.
      // With its first listener Deno sets up its own handling of SIGHUP and
      // SIGINT, which would kill ckpt: a listener that does nothing prevents
      // it. It stays, so that one still on its way does no harm at the end.
      const bit = 1n << BigInt(NUMBERS[signal] - 1);
      if ((ignored & bit) !== 0n) Deno.addSignalListener(signal, () => {});
      else this.#install(signal);
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** See `Report.onSignal`. One handler at a time. */
  onSignal(
    handler: Handler,
    signals: readonly Deno.Signal[] = [],
  ): () => void {
    if (this.#handler !== undefined) {
      throw new Error("signals are already being handled");
    }
    this.#handler = handler;
    const added = signals.filter((signal) => !this.#installed.has(signal));
    for (const signal of added) this.#install(signal);
    return () => {
      if (this.#handler !== handler) return;
      this.#handler = undefined;
      for (const signal of added) this.#remove(signal);
    };
  }

  [Symbol.dispose](): void {
    for (const signal of [...this.#installed.keys()]) this.#remove(signal);
  }

  #install(signal: Deno.Signal): void {
    const listener = () => this.#receive(signal);
    Deno.addSignalListener(signal, listener);
    this.#installed.set(signal, listener);
  }

  #remove(signal: Deno.Signal): void {
    const listener = this.#installed.get(signal);
    if (listener === undefined) return;
    this.#installed.delete(signal);
    Deno.removeSignalListener(signal, listener);
  }

  #receive(signal: Deno.Signal): void {
    if (this.#handler !== undefined) {
      this.#handler(signal);
      return;
    }
    this.#controller.abort(
      new CkptError(EXIT.interrupted, this.#action, [{
        object: signal,
        why: "asked ckpt to stop",
        remedy: "start the command again",
      }]),
    );
  }
}

/**
 * Whoever ignores SIGCHLD does not learn how its children end (wait(2)), and
 * what a parent ignores its children ignore, too.
 */
function heedChildren(): void {
  const byDefault = new Uint8Array(KERNEL_SIGACTION_BYTES);
  syscall("rt_sigaction", SIGCHLD, addressOf(byDefault), 0n, 8n);
}

/** Handler, flags, restorer, mask. */
const KERNEL_SIGACTION_BYTES = 32;

/** The mask SigIgn of proc_pid_status(5); empty without a /proc. */
function ignoredSignals(): bigint {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status);
    return mask === null ? 0n : BigInt(`0x${mask[1]}`);
  } catch {
    return 0n;
  }
}
