/**
 * A program of the test's own: a Python script that gets itself into some
 * state, tells that it is there, and waits. Its standard streams are /dev/null
 * and it has no other descriptor but those it opens. It is nobody's child, for a
 * tracer that takes the end of a child of Deno's leaves Deno waiting for it.
 */

const PROLOGUE = `
import ctypes, fcntl, json, mmap, os, select, signal, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
if os.fork():
    os._exit(0)
report = os.dup2(1, 100, False)
os.closerange(3, report)
os.closerange(report + 1, 1024)
null = os.open("/dev/null", os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
os.close(null)
def ready(answer=None):
    os.write(report, json.dumps([os.getpid(), answer]).encode())
    os.close(report)
`;

/** Threads that wait must not move on when they are looked at. */
const EPILOGUE = `
while True:
    signal.pause()
`;

/** The number of pause(2). */
const PAUSE = 34;

export class ChildProgram implements AsyncDisposable {
  private constructor(
    readonly pid: number,
    /** What the script handed to `ready`. */
    readonly answer: unknown,
  ) {}

  /**
   * @param script calls `ready(answer)` once, and may return then
   * @param session start it as the leader of a session of its own
   */
  static async start(script: string, session = true): Promise<ChildProgram> {
    const child = new Deno.Command("/usr/bin/python3", {
      args: [
        "-S",
        "-E",
        "-c",
        PROLOGUE + (session ? "os.setsid()\n" : "") + script + EPILOGUE,
      ],
      cwd: "/",
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const text = await new Response(child.stdout).text();
    await child.status;
    if (text === "") throw new Error("the script ended before it was ready");
    const [pid, answer] = JSON.parse(text);
    const program = new ChildProgram(pid, answer);
    await program.#waits();
    return program;
  }

  /** Until every thread sleeps: the main one in pause(2). */
  async #waits(): Promise<void> {
    for (;;) {
      const states = [...Deno.readDirSync(`/proc/${this.pid}/task`)].map((
        { name },
      ) => {
        const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
        return stat.slice(stat.lastIndexOf(")") + 2)[0];
      });
      const call = Deno.readTextFileSync(`/proc/${this.pid}/syscall`);
      if (
        states.every((state) => state === "S") &&
        call.startsWith(`${PAUSE} `)
      ) return;
      await new Promise((done) => setTimeout(done, 1));
    }
  }

  /** Ends it, and waits until its threads are gone; another takes its zombie. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(this.pid, "SIGKILL");
      while ([...Deno.readDirSync(`/proc/${this.pid}/fd`)].length > 0) {
        await new Promise((done) => setTimeout(done, 1));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}
