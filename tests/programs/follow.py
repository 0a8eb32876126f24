"""asyncio with an inotify of its own, tail -F and inotifywait(1) as children: all three watch the same files, one of
which is renamed and made anew, as log rotation does. follow.py WORK_DIRECTORY"""
import asyncio
import ctypes
import os
import struct
import sys

work = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
IN_CREATE = 0x100
log = f"{work}/logs/log"


def watch(path):
    """An inotify, and a queue of the names that are made in a directory."""
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if libc.inotify_add_watch(fd, path.encode(), IN_CREATE) < 0:
        raise OSError(ctypes.get_errno(), path)
    names = asyncio.Queue()

    def read():
        data = os.read(fd, 65536)
        while data:
            _, _, _, length = struct.unpack_from("iIII", data)
            names.put_nowait(data[16:16 + length].rstrip(b"\0").decode())
            data = data[16 + length:]

    asyncio.get_running_loop().add_reader(fd, read)
    return names


def write(line):
    with open(log, "a") as file:
        file.write(line + "\n")


async def lines_of(*command):
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)


async def expect(what, reading, wanted, errors):
    got = await asyncio.wait_for(reading, 50)
    if isinstance(got, bytes):
        got = got.decode().strip()
    if got != wanted:
        errors.append(f"{what}: {got!r} in the stead of {wanted!r}")


async def main():
    errors = []
    os.makedirs(f"{work}/logs", exist_ok=True)
    write("old")
    names = watch(f"{work}/logs")
    tail = await lines_of("tail", "-n1", "-F", log)
    waits = await lines_of("inotifywait", "-q", "-m", "-e", "create", "--format", "%f", f"{work}/logs")
    await expect("tail", tail.stdout.readline(), "old", errors)
    # inotifywait says nothing when it begins: until it has seen a file, others are made.
    n, first = 0, asyncio.ensure_future(waits.stdout.readline())
    while not first.done():
        n += 1
        open(f"{work}/logs/begin{n}", "w").close()
        await expect("own", names.get(), f"begin{n}", errors)
        await asyncio.wait([first], timeout=0.05)
    while (await first).decode().strip() != f"begin{n}":
        first = asyncio.ensure_future(waits.stdout.readline())
    open(f"{work}/ready", "w").close()
    while not os.path.exists(f"{work}/go"):
        await asyncio.sleep(0.01)
    write("new")
    await expect("tail", tail.stdout.readline(), "new", errors)
    os.rename(log, log + ".1")
    write("rotated")
    await expect("own", names.get(), "log", errors)
    await expect("inotifywait", waits.stdout.readline(), "log", errors)
    await expect("tail after the rotation", tail.stdout.readline(), "rotated", errors)
    for process in tail, waits:
        process.kill()
        await process.wait()
    with open(f"{work}/result.new", "w") as result:
        result.write("\n".join(errors) + "\n" if errors else "ok\n")
    os.rename(f"{work}/result.new", f"{work}/result")


asyncio.run(main())
