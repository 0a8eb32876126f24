/** A report that nobody reads. */
import type { Report } from "../../report.ts";

export const SILENT: Report = {
  log() {},
  progress() {},
  stats() {},
  signal: new AbortController().signal,
  aborted: () => false,
  letSignalsIn: () => Promise.resolve(),
  onSignal: () => () => {},
};
