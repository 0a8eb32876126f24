/**
 * A program of the test's own: a Python script that gets itself into some
 * state, tells that it is there, and waits. Its standard streams are /dev/null
 * and it has no other descriptor but those it opens.
 */

const PROLOGUE = `
import ctypes, fcntl, json, mmap, os, select, signal, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
report = os.dup2(1, 100, False)
os.closerange(3, report)
os.closerange(report + 1, 1024)
null = os.open("/dev/null", os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
os.close(null)
def ready(answer=None):
    os.write(report, json.dumps(answer).encode())
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
    readonly ended: Promise<unknown>,
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
    // A test may take the end itself, as a tracer: then nobody knows it.
    const ended = child.status.catch(() => undefined);
    const text = await new Response(child.stdout).text();
    if (text === "") throw new Error("the script ended before it was ready");
    const program = new ChildProgram(child.pid, JSON.parse(text), ended);
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

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(this.pid, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    await this.ended;
  }
}
