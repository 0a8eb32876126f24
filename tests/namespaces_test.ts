/** ckpt and the program together inside other namespaces, as in a container. */
import { assertEquals } from "@std/assert";
import { CKPT, compile, Scope } from "./harness.ts";

/**
 * The whole life of a program, as a script of bash that is the init of a pid namespace: it reaps what ends. The
 * answers come on standard output.
 */
const LIFE = `
set -u
launch=$0 program=$1 ckpt=$2 directory=$3
work=$directory/work images=$directory/images
mkdir -p "$work" "$images"
patience() { for ((i = 0; i < 3000; i++)); do "$@" && return; sleep 0.01; done; echo "gave up: $*"; exit 9; }
gone() { ! kill -0 "$pid" 2>/dev/null; }
pid=$("$launch" "$directory/log" "$work" "$program" "$work") || exit 8
patience test -s "$work/ready"
"$ckpt" dump -t "$pid" -D "$images" || { echo "dump: $?"; exit 7; }
patience gone
"$ckpt" restore -d -D "$images" || { echo "restore: $?"; exit 6; }
: >"$work/go"
patience test -s "$work/result"
cat "$work/result"
`;

const NAMESPACES: Record<string, string[]> = {
  "pid, mount, host name, IPC, network and cgroup namespaces": [
    "--pid",
    "--fork",
    "--mount",
    "--mount-proc",
    "--uts",
    "--ipc",
    "--net",
    "--cgroup",
  ],
  "a time namespace": [
    "--time",
    "--boottime",
    "100000",
    "--monotonic",
    "70000",
    "--fork",
    "--pid",
    "--mount-proc",
  ],
};

for (const [namespaces, options] of Object.entries(NAMESPACES)) {
  for (const name of ["identity", "mem_files", "threads", "posix_timers"]) {
    Deno.test(`inside ${namespaces}, ${name} survives a dump and a restore`, async () => {
      await using scope = new Scope();
      const answer = await scope.run("unshare", [
        ...options,
        "--kill-child",
        "bash",
        "-c",
        LIFE,
        await compile("launch"),
        await compile(name),
        CKPT,
        scope.path("life"),
      ]);
      assertEquals(
        { code: answer.code, stdout: answer.stdout.trim() },
        { code: 0, stdout: "ok" },
        answer.stderr,
      );
    });
  }
}
