/** Files that ckpt may not reach or make: named, with the capability or mount that is missing. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { CKPT, dump, type Program, restore, Scope } from "./harness.ts";

/** A program with descriptor 3 on `file` of the mount m, whose name was then changed by `script`. */
async function startWithLost(scope: Scope, script: string): Promise<Program> {
  const work = scope.path("work");
  await scope.unshareMounts(
    `cd ${work}; mkdir base m; mount -t tmpfs none base; mkdir base/a base/b; mount --bind base/a m; echo content > m/file`,
  );
  const program = await scope.startCommand(work, "/bin/bash", [
    "-c",
    `exec 3<m/file; ${script}; echo > ready; exec sleep 1000`,
  ]);
  await program.ready();
  return program;
}

async function remount(scope: Scope, how: "ro" | "rw"): Promise<void> {
  const { code, stderr } = await scope.bash(
    `mount -o remount,${how} ${scope.directory}/work/base`,
  );
  assertEquals(code, 0, stderr);
}

Deno.test("a deleted file of what is mounted read-only by now is refused before anything starts", async () => {
  await using scope = new Scope();
  const program = await startWithLost(scope, "rm m/file");
  const images = scope.path("images");
  await dump(scope, program, images);
  await remount(scope, "ro");
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    /file \S+\/m\/file: it was deleted while in use, so ckpt has to make it again, but its file system is mounted read-only\n +-> mount its file system for writing/,
  );
  await remount(scope, "rw");
  await restore(scope, program, images);
});

Deno.test("a file that would have to be linked where nothing can be written is told, and the program goes on", async () => {
  await using scope = new Scope();
  const program = await startWithLost(
    scope,
    "ln base/a/file base/b/other; rm m/file",
  );
  await remount(scope, "ro");
  const answer = await scope.ckpt(
    ...["dump", "--link-remap", "-t", `${program.pid}`],
    ...["-D", scope.path("images")],
  );
  assertEquals(answer.code, EXIT.failed, answer.stderr);
  assertMatch(
    answer.stderr,
    /descriptor 3 \(\S+m\/file \(deleted\)\) of task \d+: linkat: EROFS .*\n +-> mount its file system for writing/,
  );
  assertEquals(program.exists(), true);
});

Deno.test("the capability to reach the files of a program is named where ckpt lacks it", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const copied = await scope.bash(
    `cd ${work}; mkdir private; cp /bin/sleep private; chown 1000 private; chmod 700 private`,
  );
  assertEquals(copied.code, 0, copied.stderr);
  const program = await scope.startCommand(work, `${work}/private/sleep`, [
    "1000",
  ]);
  const answer = await scope.run("setpriv", [
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
    ...[CKPT, "dump", "-t", `${program.pid}`, "-D", scope.path("images")],
  ]);
  assertEquals(answer.code, EXIT.permission, answer.stderr);
  assertMatch(
    answer.stderr,
    /private\/sleep: lstat: EACCES .*\n +-> ckpt needs the capability CAP_DAC_READ_SEARCH/,
  );
  assertEquals(program.exists(), true);
});

Deno.test("a home directory that is another's does not hide what really is missing", async () => {
  await using scope = new Scope();
  Deno.chmodSync(scope.path("home"), 0o700);
  const answer = await scope.run("setpriv", [
    ...["--reuid=65534", "--regid=65534", "--clear-groups"],
    ...["env", `HOME=${scope.directory}/home`],
    ...[CKPT, "dump", "-t", "1", "-D", "/tmp/never"],
  ]);
  assertEquals(answer.code, EXIT.permission, answer.stderr);
  assertMatch(answer.stderr, /CAP_SYS_PTRACE: ckpt does not have/);
});
