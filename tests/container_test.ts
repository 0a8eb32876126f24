/**
 * A tree that has every namespace for itself but that of users, as a container
 * has: a shell with jobs as its init, mounts in memory and an overlay, a server
 * and its client, a clock of its own. Dumped and restored whole, from outside.
 */
import { assert, assertEquals } from "@std/assert";
import { assertSuccess, LONG, Program, Scope, until } from "./harness.ts";
import { kill } from "./libc.ts";
import { container } from "./mounts.ts";
import {
  childOf,
  dump,
  gone,
  isThere,
  killDumps,
  killRestores,
  restore,
} from "./own_namespaces.ts";

const SIGKILL = 9;
const SIGUSR1 = 10;

/** Counts in the server as fast as it answers; `wrong` is written when an answer is, or the clock. */
const CLIENT = `
import ctypes, socket, sys, threading, time

if "filtered" in sys.argv:
    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]
    allow = Instruction(6, 0, 0, 0x7fff0000)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Filter(1, ctypes.pointer(allow))), 0, 0) == 0

def wrong(text):
    with open("wrong", "a") as file:
        file.write(text + "\\n")

def watch():
    last = time.clock_gettime(time.CLOCK_BOOTTIME)
    while True:
        time.sleep(0.01)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if not last <= now < last + 60 or now < 100000:
            wrong(f"clock: {last} {now}")
        last = now

threading.Thread(target=watch, daemon=True).start()
server = None
while server is None:
    try:
        server = socket.create_connection(("127.0.0.1", 7379))
    except ConnectionRefusedError:
        time.sleep(0.01)
answers = server.makefile("rb")
count = 0
while True:
    server.sendall(b"INCR count\\r\\n")
    count += 1
    answer = answers.readline()
    if answer != b":%d\\r\\n" % count:
        wrong(f"count {count}: {answer}")
    time.sleep(0.001)
`;

/** The init; on SIGUSR1 it writes all it knows into \`answer\`. */
const INIT = `
work=$2
${container("")}
cd "$work"
hostname inside
ip link set lo up
echo 77 > /proc/sys/net/ipv4/ip_default_ttl
echo 5000 > /proc/sys/kernel/msgmax
mount -t tmpfs -o size=64m own /mnt
mkdir /mnt/lower /mnt/upper /mnt/work /mnt/all /mnt/inner
echo below > /mnt/lower/below
echo old > /mnt/lower/changed
mount -t overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/all
echo new > /mnt/all/changed
mount -t tmpfs -o mode=700 inner /mnt/inner
exec 7<> /mnt/all/gone 8<> /mnt/inner/gone
echo "gone from an overlay" >&7
echo "gone from memory" >&8
rm /mnt/all/gone /mnt/inner/gone
redis-server --port 7379 --bind 127.0.0.1 --save "" --appendonly no --dir /mnt/inner > /dev/null 2>&1 &
python3 client.py "\${@:3}" > /dev/null 2>&1 &
set -m
sleep 10001 &
sleep 10002 &
count() { redis-cli -p 7379 get count 2>&1 || :; }
answer() {
  local before=$(count)
  until [ "$(count)" != "$before" ]; do sleep 0.01; done
  {
    hostname
    cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax
    cat /mnt/all/below /mnt/all/changed /proc/self/fd/7 /proc/self/fd/8
    jobs | sed 's/ *$//'
    echo \$$
    # a zombie of a copy may stay
    grep -L '^State:.Z' /proc/[0-9]*/status 2> /dev/null | xargs grep -h '^Name:' 2> /dev/null |
      grep -vw 'bash\\|cat\\|grep\\|sort\\|xargs' | sort
    cut -d ' ' -f 3- /proc/self/mountinfo | grep /mnt | sed 's/^[^ ]* //; s/ shared:[0-9]*//; s/,lowerdir.*//'
    stat -c '%A %n' /mnt/*
  } > "$work/answer.new" 2>&1
  mv "$work/answer.new" "$work/answer"
}
trap answer USR1
echo x > ready
while :; do wait || :; done
`;

/** What its init says, when its server and its client have gone on. */
async function ask({ pid, work }: Program): Promise<string> {
  const answer = `${work}/answer`;
  kill(pid, SIGUSR1);
  await until("the init answers", () => isThere(answer) || undefined);
  const text = Deno.readTextFileSync(answer);
  Deno.removeSync(answer);
  assert(!isThere(`${work}/wrong`), "the client saw something wrong");
  return text;
}

async function start(scope: Scope, ...args: string[]): Promise<Program> {
  const work = scope.path("work");
  Deno.writeTextFileSync(`${work}/client.py`, CLIENT);
  const unshare = await scope.startCommand(work, "unshare", [
    "--fork",
    "--pid",
    "--mount",
    "--uts",
    "--ipc",
    "--net",
    "--time",
    "--cgroup",
    "--mount-proc",
    "--boottime=100000",
    "setsid",
    "bash",
    "-c",
    INIT,
    scope.directory,
    scope.path("root"),
    work,
    ...args,
  ]);
  await until("its init is ready", () => isThere(`${work}/ready`) || undefined);
  const pid = childOf(unshare.pid)!;
  scope.defer(() => {
    kill(pid, SIGKILL);
  });
  return new Program(pid, work, unshare.log);
}

for (const args of [[], ["filtered"]]) {
  const what = ["a tree with all namespaces of its own", ...args].join(", ");

  Deno.test(`${what}, comes back whole, with and without --root`, async () => {
    await using scope = new Scope();
    let tree = await start(scope, ...args);
    const before = await ask(tree);
    assert(before.startsWith("inside\n77\n5000\nbelow\nnew\n"), before);
    await dump(scope, tree, scope.path("first"));
    await gone(tree.pid);
    tree = await restore(scope, tree, scope.path("first"));
    assertEquals(await ask(tree), before);
    const other = scope.path("other");
    await scope.unshareMounts(`mount --bind / ${other}`);
    await dump(scope, tree, scope.path("second"), "-R");
    assertEquals(await ask(tree), before);
    await dump(scope, tree, scope.path("third"));
    await gone(tree.pid);
    const images = scope.path("third");
    tree = await restore(scope, tree, images, "--root", other);
    assertEquals(await ask(tree), before);
    const shown = await scope.ckpt("show", scope.path("third"));
    assertSuccess(shown, "show");
    assert(
      shown.stdout.includes(
        "namespaces of its own: mnt, pid, net, ipc, uts, time, cgroup\n",
      ),
      shown.stdout,
    );
  });
}

const KILLS = LONG ? 200 : 8;

/** Waits until nothing is left inside of a ckpt that was killed, and all is as it was. */
async function asBefore(tree: Program, before: string): Promise<void> {
  await until(
    "the tree is as before",
    async () => await ask(tree) === before || undefined,
  );
}

const inTurn = (i: number) => i % 2 === 0 ? "inner" : "outer";

Deno.test(`a tree with all namespaces of its own and seccomp filters stands ${KILLS} kills of ckpt while it is dumped, and as many of restores`, async () => {
  await using scope = new Scope();
  let tree = await start(scope, "filtered");
  const before = await ask(tree);
  const images = scope.path("images");
  const first = performance.now();
  await dump(scope, tree, images, "-R");
  await killDumps(
    scope,
    tree,
    KILLS,
    performance.now() - first,
    inTurn,
    () => asBefore(tree, before),
  );

  Deno.removeSync(images, { recursive: true });
  await dump(scope, tree, images);
  await gone(tree.pid);
  const second = performance.now();
  tree = await restore(scope, tree, images);
  const whole = performance.now() - second;
  kill(tree.pid, SIGKILL);
  await gone(tree.pid);
  await killRestores(scope, images, KILLS, whole, inTurn);
  tree = await restore(scope, tree, images);
  assertEquals(await ask(tree), before);
});
