/** Standard streams that belong to the outside: a terminal with --shell-job, a pipe with --external and --inherit-fd. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { assertSuccess, CKPT, compile, Scope, until } from "./harness.ts";

/** Closes what Deno leaves open in its children; a line of bash. */
const CLOSE_OTHERS =
  `for fd in /proc/self/fd/*; do fd=\${fd##*/}; ((fd > 2)) && eval "exec $fd>&-"; done`;

/** Starts a program whose standard output is a pipe to `cat`, which writes the file `output`. */
async function startOnPipe(scope: Scope) {
  const work = scope.path("work");
  const output = `${scope.directory}/output`;
  const started = scope.bash(
    `${CLOSE_OTHERS}
     setsid "$0" "$1" exit 0 </dev/null 2>>"$1/log" | cat >"$2"`,
    await compile("ends"),
    work,
    output,
  );
  await until("the program is ready", () => {
    try {
      return Deno.readTextFileSync(`${work}/ready`) || undefined;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  });
  const program = scope.adopt(work);
  const pipe = Deno.readLinkSync(`/proc/${program.pid}/fd/1`);
  assertMatch(pipe, /^pipe:\[\d+\]$/);
  return { started, program, pipe, output };
}

Deno.test("a pipe of the outside is refused with the options that would allow it", async () => {
  await using scope = new Scope();
  const { started, program, pipe } = await startOnPipe(scope);
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(answer.code, EXIT.refused);
  assertStringIncludes(answer.stderr, `descriptor 1 (${pipe})`);
  assertStringIncludes(answer.stderr, `--external ${pipe}`);
  assertStringIncludes(answer.stderr, "--inherit-fd");
  Deno.writeTextFileSync(`${program.work}/go`, "");
  assertSuccess(await started, "the program on its pipe");
});

Deno.test("a pipe of the outside is taken over at restore by --inherit-fd", async () => {
  await using scope = new Scope();
  const { started, program, pipe } = await startOnPipe(scope);
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt(
      "dump",
      "-t",
      `${program.pid}`,
      "-D",
      images,
      "--external",
      pipe,
    ),
    "dump",
  );
  await started;
  const without = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(without.code === EXIT.ok, false, "restored without its pipe");
  assertStringIncludes(without.stderr, pipe);
  // the reader of the new pipe sees what the program writes, and its end
  const answer = await scope.bash(
    `${CLOSE_OTHERS}
     exec 3>&1
     { "$0" restore -D "$1" --inherit-fd "fd[7]:$2" 7>&1 >&3 & : >"$3/go"; wait $!; echo "ended with $?" >&3; } |
       { cat >/dev/null; echo "end of the pipe" >&3; }`,
    CKPT,
    images,
    pipe,
    program.work,
  );
  assertStringIncludes(answer.stdout, "ended with 0", answer.stderr);
  assertStringIncludes(answer.stdout, "end of the pipe");
});

/** Whether this machine has a serial line, or another console. */
function openConsole(): string | undefined {
  return ["/dev/ttyS0", "/dev/tty1", "/dev/console"].find((path) => {
    try {
      Deno.openSync(path).close();
      return true;
    } catch {
      return false;
    }
  });
}

Deno.test("a console of the host is refused, left out by --external and given again by --inherit-fd", async () => {
  const console = openConsole();
  if (console === undefined) return;
  await using scope = new Scope();
  const work = scope.path("work");
  const program = await scope.startCommand(work, "python3", [
    "-c",
    `import os, time
fd = os.open("${console}", os.O_RDWR | os.O_NOCTTY)
open("ready", "w")
while not os.path.exists("go"): time.sleep(0.02)
with open("result.new", "w") as result: print("ok" if os.isatty(fd) else "no terminal", file=result)
os.rename("result.new", "result")`,
  ]);
  await program.ready();
  const images = scope.path("images");
  const dumping = ["dump", "-t", `${program.pid}`, "-D", images];
  const refused = await scope.ckpt(...dumping);
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  const [, key] = /--external (tty\[[0-9a-f]+:[0-9a-f]+\])/.exec(
    refused.stderr,
  )!;
  assertSuccess(await scope.ckpt(...dumping, "--external", key), "dump");
  await program.ended();
  const without = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(without.code === EXIT.ok, false, "restored without its console");
  assertStringIncludes(without.stderr, `--inherit-fd fd[N]:${key}`);
  program.restored();
  assertSuccess(
    await scope.bash(
      `"$0" restore -d -D "$1" --inherit-fd "fd[7]:$2" 7<>${console}`,
      CKPT,
      images,
      key,
    ),
    "restore",
  );
  assertEquals(await program.verify(), "ok");
});

Deno.test("a program of a terminal is refused without --shell-job and restored with it", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const images = scope.path("images");
  const script = `${scope.directory}/session`;
  // all of it runs on a terminal that script(1) makes; nothing is monitored, so all is one process group
  Deno.writeTextFileSync(
    script,
    `set -u
${CLOSE_OTHERS}
# a command in the background reads /dev/null unless it is told otherwise
exec 3<&0
"${await compile("terminal")}" "${work}" <&3 3<&- &
pid=$!
for ((i = 0; i < 2000; i++)); do [[ -s ${work}/ready ]] && break; sleep 0.01; done
"${CKPT}" dump -t $pid -D "${images}" 2>"${scope.directory}/refusal"
echo "without: $?" >>"${scope.directory}/answers"
"${CKPT}" dump -t $pid -j -D "${images}" 2>>"${scope.directory}/errors"
echo "dump: $?" >>"${scope.directory}/answers"
wait $pid
"${CKPT}" restore -j -D "${images}" <&3 3<&- 2>>"${scope.directory}/errors" &
: >"${work}/go"
wait $!
echo "restore: $?" >>"${scope.directory}/answers"
`,
  );
  const answer = await scope.run("script", [
    "-qfec",
    `bash ${script}`,
    "/dev/null",
  ]);
  const read = (name: string) => {
    try {
      return Deno.readTextFileSync(`${scope.directory}/${name}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return "";
      throw error;
    }
  };
  assertEquals(
    read("answers"),
    `without: ${EXIT.refused}\ndump: 0\nrestore: 0\n`,
    read("errors") + read("work/result"),
  );
  assertStringIncludes(read("refusal"), "--shell-job");
  assertEquals(read("work/result"), "ok\n");
  assertStringIncludes(answer.stdout, "hello");
});
