/** The tools that are measured. Both take the same options for what is measured here. */

import type { Host } from "./host.ts";

/** Where CRIU keeps what it found out about the kernel; only on a tmpfs. */
const CRIU_CACHE = "/run/criu.kdat";

export interface Tool {
  /** Heading of its column. */
  name: string;
  executable: string;
  /** What has to be done before every run. */
  prepare: (host: Host) => Promise<void>;
}

const nothing = () => Promise.resolve();

/** @param criu absolute path; undefined measures ckpt alone */
export function tools(ckpt: string, criu: string | undefined): Tool[] {
  const list: Tool[] = [{ name: "ckpt", executable: ckpt, prepare: nothing }];
  if (criu === undefined) return list;
  return list.concat([
    { name: "criu", executable: criu, prepare: nothing },
    {
      name: "criu, no cache",
      executable: criu,
      prepare: (host) => host.forget(CRIU_CACHE),
    },
  ]);
}

export function dump(
  pid: number,
  images: string,
  stays: boolean,
  options: string[] = [],
): string[] {
  return ["dump", "-t", String(pid), "-D", images, "-o", "dump.log"]
    .concat(stays ? ["-R"] : [], options);
}

export function restore(images: string, options: string[] = []): string[] {
  return ["restore", "-D", images, "-d", "-o", "restore.log", ...options];
}
