/** `/proc/PID/comm` (proc_pid_comm(5)). */

/**
 * The name of a thread. Not escaped: it may hold newlines itself, only the
 * last one is the file's.
 */
export function parseComm(text: string): string {
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}
