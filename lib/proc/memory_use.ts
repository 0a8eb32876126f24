/** How much memory of its own a process uses (proc_pid_status(5)). */

const FIELDS = /^(?:RssAnon|RssShmem|VmSwap):\s*([0-9]+) kB$/gm;

/** Bytes of anonymous and shared memory, in RAM and swapped out. */
export function parseMemoryUse(status: string): number {
  let kilobytes = 0;
  for (const [, number] of status.matchAll(FIELDS)) kilobytes += Number(number);
  return kilobytes * 1024;
}
