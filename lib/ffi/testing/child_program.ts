/**
 * A program of the test's own: a Python script that gets itself into some
 * state, tells that it is there, and waits. Its standard streams are /dev/null
 * and it has no other descriptor but those it opens. It is nobody's child, for a
 * tracer that takes the end of a child of Deno's leaves Deno waiting for it.
 */

const PROLOGUE = `
import ctypes, fcntl, json, mmap, os, select, signal, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
# Keeps the lock of the interpreter: the child has no other thread to give it back.
locked = ctypes.PyDLL(None)
CLONE, PR_SET_PDEATHSIG, CLONE_FS, CLONE_FILES = 56, 1, 0x200, 0x400
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
def child(run=lambda: None, flags=signal.SIGCHLD):
    reading, writing = os.pipe()
    pid = locked.syscall(CLONE, flags, 0, 0, 0, 0)
    shared = flags & CLONE_FILES
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if not shared:
            writing = os.dup2(writing, 101, False)
            os.closerange(3, writing)
        os.write(writing, json.dumps(run()).encode())
        if not shared:
            os.close(writing)
        while True:
            signal.pause()
    if not shared:
        os.close(writing)
    answer = os.read(reading, 4096)
    while not shared and os.read(reading, 4096):
        pass
    if shared:
        os.close(writing)
    os.close(reading)
    return [pid, json.loads(answer)]
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
   * @param script calls `ready(answer)` once, and may return then. Before, it
   * can have children that wait and die with it, and have none of its
   * descriptors: `child(run, flags)` with flags of clone(2) returns the pid and
   * what `run`, called in the child, returned
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
      // It may go away while its directory is read.
      const isGone = error instanceof Deno.errors.NotFound ||
        error instanceof Error && "code" in error && error.code === "ESRCH";
      if (!isGone) throw error;
    }
  }
}
