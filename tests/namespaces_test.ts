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

/** Nothing but the directory of the test can be written, and there is no home and no temporary directory. */
const READ_ONLY = `
mount -t tmpfs life "$3" || exit 5
while read -r _ _ _ _ target _; do
  [ "$target" = "$3" ] || [ "$target" = /proc ] || mount -o remount,bind,ro "$target" 2>/dev/null
done </proc/self/mountinfo
if : 2>/dev/null >"\${TMPDIR:-/tmp}/ckpt-can-write"; then echo "not read-only"; exit 4; fi
unset HOME TMPDIR
cd /
${LIFE}`;

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

function lives(where: string, options: string[], script: string, name: string) {
  Deno.test(`${where}, ${name} survives a dump and a restore`, async () => {
    await using scope = new Scope();
    const answer = await scope.run("unshare", [
      ...options,
      "--kill-child",
      "bash",
      "-c",
      script,
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

for (const [namespaces, options] of Object.entries(NAMESPACES)) {
  for (const name of ["identity", "mem_files", "threads", "posix_timers"]) {
    lives(`inside ${namespaces}`, options, LIFE, name);
  }
}
lives(
  "where nothing can be written but the images",
  ["--pid", "--fork", "--mount", "--mount-proc"],
  READ_ONLY,
  "threads",
);
