/** `/proc/PID/cmdline` and `/proc/PID/comm` (proc_pid_cmdline(5)). */

/**
 * The arguments. A program may overwrite its argument area, so what comes
 * back is what it shows, not necessarily what exec was given. Empty for
 * zombies and kernel threads.
 */
export function parseCmdline(text: string): string[] {
  if (text === "") return [];
  return (text.endsWith("\0") ? text.slice(0, -1) : text).split("\0");
}

/**
 * The name of a thread. Not escaped: it may hold newlines itself, only the
 * last one is the file's.
 */
export function parseComm(text: string): string {
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}
