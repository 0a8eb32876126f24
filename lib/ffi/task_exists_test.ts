import { assertEquals } from "@std/assert";
import { taskExists } from "./task_exists.ts";
import { ChildProgram } from "./testing/child_program.ts";

Deno.test("processes, threads and zombies exist, and ids that nobody has do not", async () => {
  await using child = await ChildProgram.start(`
gate = threading.Lock()
gate.acquire()
thread = threading.Thread(target=gate.acquire, daemon=True)
thread.start()
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
gone = os.fork()
if gone == 0:
    os._exit(0)
os.waitpid(gone, 0)
ready([thread.native_id, zombie, gone])
`);
  const [thread, zombie, gone] = child.answer as number[];
  assertEquals(
    [child.pid, thread, zombie, gone].map(taskExists),
    [true, true, true, false],
  );
});
