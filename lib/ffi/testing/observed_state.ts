/** Everything of a process that an agent inside it must leave as it was. */
import { listDescriptors, listThreads, readStatus } from "../../proc/read.ts";

export interface ObservedState {
  readonly maps: string;
  readonly descriptors: readonly string[];
  /** Of each thread: blocked, pending and caught signals, tracer, name. */
  readonly threads: readonly (readonly unknown[])[];
}

export function observeState(pid: number): ObservedState {
  return {
    maps: Deno.readTextFileSync(`/proc/${pid}/maps`),
    descriptors: [...listDescriptors(pid)].map((fd) =>
      `${fd} ${Deno.readLinkSync(`/proc/${pid}/fd/${fd}`)}`
    ),
    threads: [...listThreads(pid)].map((tid) => {
      const { name, sigBlk, sigPnd, shdPnd, sigCgt, seccomp, tracerPid } =
        readStatus(tid);
      return [tid, name, sigBlk, sigPnd, shdPnd, sigCgt, seccomp, tracerPid];
    }),
  };
}
