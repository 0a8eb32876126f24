/**
 * A ckpt whose dump and restore do nothing but wait for signals, for the tests
 * of signals, which need a process of their own. It prints "ready" when signals
 * are caught, and what its restore is handed.
 */
import { runCommandLine } from "../mod.ts";
import type { Report } from "../../report.ts";

async function untilAborted(report: Report): Promise<never> {
  console.log("ready");
  while (!report.aborted()) await report.letSignalsIn();
  throw report.signal.reason;
}

const code = await runCommandLine(Deno.args, {
  dump: (_options, report) => untilAborted(report),
  async restore(_options, report) {
    const { promise, resolve } = Promise.withResolvers<Deno.Signal>();
    const stop = report.onSignal(resolve, ["SIGUSR2"]);
    console.log("ready");
    // Nothing else keeps the event loop alive.
    const timer = setInterval(() => {}, 60_000);
    console.log(`handed ${await promise}`);
    clearInterval(timer);
    stop();
    return await untilAborted(report);
  },
  check: () => Promise.reject(new Error("not part of this test")),
  clean: () => Promise.reject(new Error("not part of this test")),
  show: () => Promise.reject(new Error("not part of this test")),
});
Deno.exit(code);
