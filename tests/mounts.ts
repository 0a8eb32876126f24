/** Programs in mount namespaces of their own, and what their mounts are like, whatever their ids are called. */
import { assertEquals } from "@std/assert";
import { compile, dump, type Program, restore, Scope } from "./harness.ts";
import { difference } from "./observe.ts";

/**
 * Lines of mountinfo(5) of several processes, with numbers in the order in which they occur. What was removed may have
 * had a name beside its own, where another file has that.
 */
export function mountsOf(pids: readonly number[]): string[][] {
  const names = new Map<string, number>();
  const rename = (kind: string, value: string) => {
    const key = `${kind} ${value}`;
    if (!names.has(key)) names.set(key, names.size);
    return `${kind}${names.get(key)}`;
  };
  return pids.map((pid) => {
    const lines = mountInfo(pid).trimEnd().split("\n");
    const ids = new Set(lines.map((line) => line.split(" ")[0]));
    return lines.map((line) => {
      if (line === "ended" || line === "") return line;
      const [id, parent, device, root, point, flags, ...rest] = line.split(" ");
      const dash = rest.indexOf("-");
      const tags = rest.slice(0, dash).map((tag) => {
        const [name, group] = tag.split(":");
        return group === undefined ? tag : `${name}:${rename("group", group)}`;
      });
      return [
        rename("mount", id),
        ids.has(parent) ? rename("mount", parent) : "outside",
        rename("device", device),
        root.replace(/\.ckpt-ghost\.\d+(?=\/\/deleted$)/, ""),
        point,
        flags,
        ...tags,
        ...rest.slice(dash),
      ].join(" ");
    });
  });
}

function mountInfo(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/mountinfo`);
  } catch {
    // Of a process that has ended the kernel tells nothing (EINVAL).
    return "ended";
  }
}

/**
 * A root of the program's own that shows the host's, like that of a container: what the host has mounted elsewhere is
 * not in it. $0 is the directory of the test, $1 one in which it is put together.
 */
export const container = (before: string) => `
set -e
mount --bind / "$1"
mount --make-private "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs -o mode=755 dev dev
cp -a /dev/null /dev/zero /dev/urandom dev/
mkdir -p tmp/ckpt-mounts
${before}
pivot_root . tmp/ckpt-mounts
cd /
umount -l /tmp/ckpt-mounts
mount --bind "$0" "$0"
`;

/**
 * Starts a program of tests/programs in a mount namespace of its own.
 *
 * @param script of bash, run in it; or one to be run before the old root is gone, in the directory that becomes the root
 */
export async function startIn(
  scope: Scope,
  script: string | { before: string; after?: string; propagation: string },
  name: string,
  ...args: string[]
): Promise<Program> {
  const { before, after, propagation } = typeof script === "string"
    ? { before: "", after: script, propagation: "private" }
    : { after: "", ...script };
  const work = scope.path(`work-${name}`);
  const root = scope.path("root");
  const program = await scope.startCommand(work, "unshare", [
    "--mount",
    "--propagation",
    propagation,
    "bash",
    "-c",
    `${container(before)}\n${after}\ncd "$2"\nexec "\${@:3}"`,
    scope.directory,
    root,
    work,
    await compile(name),
    work,
    ...args,
  ]);
  await program.ready();
  return program;
}

/**
 * Numbers of mounts, namespaces, and of files and devices that live in memory:
 * new ones, compared by mountsOf. And a name that another file has by now.
 */
const NUMBERS =
  /(^|\d\/)(mountinfo|ns\/mnt): |mnt_id:|before: ino:|^(\d+\/)?maps: .*\/(dev\/zero|(mnt|deep)\/\S*|program)$|after: .*\.ckpt-ghost\.1 \(deleted\)$/;

/** The whole way, twice: mounts and everything else are as before. */
export async function survives(
  scope: Scope,
  program: Program,
  options: string[] = [],
): Promise<void> {
  const pids = program.tree();
  const mounts = mountsOf(pids);
  const before = program.observe();
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images), ...options);
    await restore(scope, program, scope.path(images), ...options);
    assertEquals(mountsOf(pids), mounts);
    assertEquals(
      difference(before, program.observe()).filter((line) =>
        !NUMBERS.test(line)
      ),
      [],
      `after the ${images} restore`,
    );
  }
  assertEquals(await program.verify(), "ok");
}
