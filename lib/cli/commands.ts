/**
 * The work behind each command. Loaded when it is wanted: in the bundle a
 * module that is imported this way is not even evaluated before, which is what
 * keeps `ckpt --version` fast.
 */
import type {
  CheckOptions,
  CheckResult,
  DumpOptions,
  DumpResult,
} from "../dump/options.ts";
import type { Report } from "../report.ts";
import type { RestoreOptions, RestoreResult } from "../restore/options.ts";
import type { Cleaned } from "../ghost/links.ts";
import type { CleanOptions, ShowOptions } from "./options.ts";

export interface Commands {
  dump(options: DumpOptions, report: Report): Promise<DumpResult>;
  check(options: CheckOptions, report: Report): Promise<CheckResult>;
  restore(options: RestoreOptions, report: Report): Promise<RestoreResult>;
  /** @returns what to print: text for people, or all of it as JSON */
  show(options: ShowOptions, report: Report): Promise<string>;
  clean(options: CleanOptions, report: Report): Promise<Cleaned>;
}

export const dump: Commands["dump"] = async (options, report) => {
  const { dump } = await import("../dump/mod.ts");
  return await dump(options, report);
};

export const check: Commands["check"] = async (options, report) => {
  const { check } = await import("../dump/mod.ts");
  return await check(options, report);
};

export const restore: Commands["restore"] = async (options, report) => {
  const { restore } = await import("../restore/mod.ts");
  return await restore(options, report);
};

export const show: Commands["show"] = async (options) => {
  const { show } = await import("./show.ts");
  return await show(options);
};

export const clean: Commands["clean"] = async (options) => {
  const { clean } = await import("../dump/clean.ts");
  return clean(options.imagesDirectory);
};
