/** A cgroup of a test's own, of either version where this host has it. */
import { readMountInfo } from "../../proc/read.ts";
import type { CgroupVersion } from "../cgroup_freezer.ts";

function mountPoint(version: CgroupVersion): string | undefined {
  return readMountInfo(Deno.pid).find(({ type, superOptions }) =>
    version === 2
      ? type === "cgroup2"
      : type === "cgroup" && superOptions.includes("freezer")
  )?.mountPoint;
}

/** The versions whose freezer this host has. */
export const VERSIONS = ([1, 2] as const).filter((version) =>
  mountPoint(version) !== undefined
);

export class TestCgroup implements AsyncDisposable {
  readonly directory: string;

  constructor(readonly version: CgroupVersion) {
    // Pids are not enough: other tests may run in other pid namespaces.
    this.directory = `${mountPoint(version)}/ckpt-test-${crypto.randomUUID()}`;
    Deno.mkdirSync(this.directory);
  }

  /** A cgroup below; its directory. */
  child(name: string, parent = this.directory): string {
    Deno.mkdirSync(`${parent}/${name}`);
    return `${parent}/${name}`;
  }

  add(pid: number, directory = this.directory): void {
    Deno.writeTextFileSync(`${directory}/cgroup.procs`, `${pid}`);
  }

  /** Tells one to freeze or thaw, without waiting. */
  switch(frozen: boolean, directory = this.directory): void {
    const [file, text] = this.version === 1
      ? ["freezer.state", frozen ? "FROZEN" : "THAWED"]
      : ["cgroup.freeze", frozen ? "1" : "0"];
    Deno.writeTextFileSync(`${directory}/${file}`, text);
  }

  /** Whether nothing in it runs. */
  isFrozen(directory = this.directory): boolean {
    return this.version === 1
      ? Deno.readTextFileSync(`${directory}/freezer.state`) === "FROZEN\n"
      : Deno.readTextFileSync(`${directory}/cgroup.events`)
        .includes("frozen 1\n");
  }

  async freeze(): Promise<void> {
    // Told again and again: version 1 may overlook a task.
    for (this.switch(true); !this.isFrozen(); this.switch(true)) {
      await new Promise((done) => setTimeout(done, 1));
    }
  }

  /** Thaws and kills what is left in it, and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#remove(this.directory);
  }

  async #remove(directory: string): Promise<void> {
    this.switch(false, directory);
    for (const entry of Deno.readDirSync(directory)) {
      if (entry.isDirectory) await this.#remove(`${directory}/${entry.name}`);
    }
    for (;;) {
      const pids = Deno.readTextFileSync(`${directory}/cgroup.procs`)
        .split("\n").filter((line) => line !== "").map(Number);
      try {
        for (const pid of pids) Deno.kill(pid, "SIGKILL");
        if (pids.length === 0) return Deno.removeSync(directory);
      } catch (error) {
        // Gone, or not gone from the cgroup yet.
        if (!(error instanceof Error)) throw error;
      }
      await new Promise((done) => setTimeout(done, 1));
    }
  }
}
