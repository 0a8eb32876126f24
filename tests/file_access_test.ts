/** Files that ckpt may not reach or make: named, with the capability or mount that is missing. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { CKPT, dump, type Program, restore, Scope } from "./harness.ts";

/** A program with descriptor 3 on `file` of the mount m, whose name was then changed by `script`. */
async function startWithLost(
  scope: Scope,
  script: string,
  before: readonly string[] = [],
): Promise<Program> {
  const work = scope.path("work");
  await scope.unshareMounts(
    `cd ${work}; mkdir base m; mount -t tmpfs none base; mkdir base/a base/b; mount --bind base/a m; echo content > m/file`,
  );
  const [command, ...args] = [
    ...before,
    "/bin/bash",
    "-c",
    `exec 3<m/file; ${script}; echo > ready; exec sleep 1000`,
  ];
  const program = await scope.startCommand(work, command, args);
  await program.ready();
  return program;
}

async function remount(scope: Scope, how: "ro" | "rw"): Promise<void> {
  const { code, stderr } = await scope.bash(
    `mount -o remount,${how} ${scope.path("work")}/base`,
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

/** Runs what follows without the capability to write where others own the directory. */
const WITHOUT_OVERRIDE = [
  ...["/usr/bin/setpriv", "--bounding-set=-dac_override"],
  "--inh-caps=-dac_override",
];

async function ckptWithoutOverride(scope: Scope, ...args: string[]) {
  const [command, ...rest] = [...WITHOUT_OVERRIDE, CKPT, ...args];
  return await scope.run(command, rest);
}

Deno.test("the capability to link or make files is named where ckpt lacks it, and nothing is left", async () => {
  await using scope = new Scope();
  const program = await startWithLost(
    scope,
    "echo gone > m/gone; exec 4<>m/gone; rm m/gone; " +
      "ln base/a/file base/b/other; rm m/file; chown 1000 base/a; chmod 700 base/a",
    WITHOUT_OVERRIDE,
  );
  const images = scope.path("images");
  const dumping = ["dump", "--link-remap", "-t", `${program.pid}`];
  const names = async () =>
    (await scope.bash(`ls -A ${scope.path("work")}/base/a`)).stdout;
  const refused = await ckptWithoutOverride(scope, ...dumping, "-D", images);
  assertEquals(refused.code, EXIT.permission, refused.stderr);
  assertMatch(
    refused.stderr,
    /descriptor 3 \(\S+m\/file \(deleted\)\) of task \d+: linkat: EACCES .*\n +-> ckpt needs the capabilities CAP_FOWNER and CAP_DAC_OVERRIDE/,
  );
  assertEquals(await names(), "");
  assertEquals(program.exists(), true);
  await dump(scope, program, images, "--link-remap");
  const failed = await ckptWithoutOverride(
    scope,
    "restore",
    "-d",
    "-D",
    images,
  );
  assertEquals(failed.code, EXIT.failed, failed.stderr);
  assertMatch(
    failed.stderr,
    /file \S+m\/(gone|file): .*EACCES .*\n +-> ckpt needs the capability CAP_DAC_OVERRIDE/,
  );
  assertEquals(await names(), "link_remap.1\n");
  await scope.gone();
  await restore(scope, program, images);
});

Deno.test("a file with another name that cannot be linked is saved, and a warning says what that means", async () => {
  await using scope = new Scope();
  const program = await startWithLost(
    scope,
    "ln base/a/file base/b/other; rm m/file; chattr +i base/b/other",
  );
  const images = scope.path("images");
  const answer = await scope.ckpt(
    ...["dump", "--link-remap", "-t", `${program.pid}`, "-D", images],
  );
  await scope.bash(`chattr -i ${scope.path("work")}/base/b/other`);
  assertEquals(answer.code, EXIT.ok, answer.stderr);
  assertMatch(
    answer.stderr,
    /descriptor 3 \(\S+m\/file \(deleted\)\) of task \d+: it cannot be linked \(linkat: EPERM .*\), so its content is saved; later writes/,
  );
  await program.ended();
  await restore(scope, program, images);
  const { stdout } = await scope.bash(`cat /proc/${program.pid}/fd/3`);
  assertEquals(stdout, "content\n");
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
