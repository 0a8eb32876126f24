import { assertEquals } from "@std/assert";
import { openPidfd } from "../ffi/pidfd.ts";
import { Program } from "../ffi/program.ts";
import { close, syscall } from "../ffi/syscall.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { OptionSetter } from "./option_setter.ts";
import { readSocketOptions, type SocketOptions } from "./socket_options.ts";

const TCP = { domain: 2, type: 1, protocol: 6 };

function read(pid: number, fd: number): SocketOptions {
  const pidfd = openPidfd(pid);
  const own = Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)));
  close(pidfd);
  try {
    return readSocketOptions(own, TCP);
  } finally {
    close(own);
  }
}

Deno.test("of the options without a field, those are told that differ from a fresh socket's", async () => {
  await using child = await ChildProgram.start(`
fresh = socket.socket()
other = socket.socket()
other.setsockopt(6, 18, 12345)
other.setsockopt(0, 12, 1)
ready([fresh.fileno(), other.fileno()])
`);
  const [fresh, other] = child.answer as number[];
  assertEquals(read(child.pid, fresh).further, []);
  assertEquals(read(child.pid, other).further, [
    { level: 0, name: 12, value: Uint8Array.of(1, 0, 0, 0) },
    { level: 6, name: 18, value: Uint8Array.of(0x39, 0x30, 0, 0) },
  ]);
});

Deno.test("options are read as they were set again", async () => {
  await using child = await ChildProgram.start(`
import struct
one = socket.socket()
for name, value in ((2, 1), (6, 1), (9, 1), (12, 3), (18, 7), (36, 99), (5, 1), (8, 30000)):
    one.setsockopt(1, name, value)
one.setsockopt(1, 13, struct.pack("2i", 1, 5))
one.setsockopt(1, 20, struct.pack("2q", 2, 250000))
one.setsockopt(1, 25, b"lo\\0")
code = struct.pack("HBBI", 0x28, 0, 0, 12) + struct.pack("HBBI", 0x15, 1, 2, 0x800) + struct.pack("HBBI", 6, 0, 0, 0xffffffff) * 3
memory = ctypes.create_string_buffer(code)
one.setsockopt(1, 26, struct.pack("HxxxxxxQ", 5, ctypes.addressof(memory)))
one.setsockopt(1, 44, 1)
ready(one.fileno())
`);
  const seen = read(child.pid, child.answer as number);
  assertEquals(seen.opts.so_filter, [
    0x28n << 48n | 12n,
    0x15n << 48n | 1n << 40n | 2n << 32n | 0x800n,
    6n << 48n | 0xffffffffn,
    6n << 48n | 0xffffffffn,
    6n << 48n | 0xffffffffn,
  ]);
  assertEquals(
    [seen.opts.so_linger, seen.opts.so_bound_dev, seen.opts.so_mark],
    [5, "lo", 99],
  );
  using task = new AgentTask();
  const program = new Program();
  const made = program.call("socket", [2, 1, 6], "making a socket");
  const fd = 20;
  program.call("dup3", [made, fd, 0], "giving it its number");
  const setter = new OptionSetter(program, fd, "a socket");
  setter.common(seen.opts);
  setter.sharing(true, false);
  setter.further(seen.further);
  task.run(program);
  assertEquals(read(task.pid, fd), seen);
});
