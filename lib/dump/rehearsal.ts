/**
 * Plays through, with a task of ckpt's own, what is done while a program stands
 * still. JavaScript is compiled when it first runs, and native calls are bound
 * when first made: that shall not happen at the cost of the program.
 */
import { CkptError } from "../error.ts";
import { AgentProcess } from "../ffi/agent_process.ts";
import { library } from "../ffi/library.ts";
import type { Report } from "../report.ts";
import { interview } from "./collect.ts";
import { lookAtProcess } from "./survey.ts";

export function rehearse(report: Report): void {
  library("pages");
  try {
    const OPEN_FILES = 64n;
    using process = AgentProcess.start({
      pid: 0,
      parent: "ckpt",
      keep: [],
      openFiles: [OPEN_FILES, OPEN_FILES],
    });
    using snapshot = interview(
      lookAtProcess(process.pid),
      Int32Array.of(process.pid),
      true,
      process.memory,
      undefined,
      true,
    ).snapshot;
    snapshot?.end();
  } catch (error) {
    // The dump itself will say what is not possible here.
    if (!(error instanceof CkptError)) throw error;
    report.log(4, `the rehearsal failed: ${error.message}`);
  }
}
