"""A parent and a child that talk over a socketpair, with asyncio in the parent and a server on a Unix socket between
them, as a program would do it. talk.py WORK_DIRECTORY"""
import asyncio
import hashlib
import os
import socket
import sys

work = sys.argv[1]
COUNT = 1000


def answer(line):
    return hashlib.sha256(line.encode()).hexdigest()


def child(end):
    """Answers every line until there is no more."""
    with end, end.makefile("rw") as lines:
        for line in lines:
            lines.write(answer(line.strip()) + "\n")
            lines.flush()


async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(answer(line.decode().strip()).encode() + b"\n")
    writer.close()


async def ask(reader, writer, n, errors):
    writer.write(f"question {n}\n".encode())
    line = (await reader.readline()).decode().strip()
    if line != answer(f"question {n}"):
        errors.append(f"the answer to {n} is {line!r}")


async def talk(end):
    errors = []
    pair = await asyncio.open_connection(sock=end)
    server = await asyncio.start_unix_server(serve, f"{work}/server")
    own = await asyncio.open_unix_connection(f"{work}/server")
    for n in range(COUNT):
        await asyncio.gather(ask(*pair, n, errors), ask(*own, n, errors))
        if n == 40:
            open(f"{work}/ready", "w").close()
        while n == COUNT // 2 and not os.path.exists(f"{work}/go"):
            await asyncio.sleep(0.01)
    late = await asyncio.open_unix_connection(f"{work}/server")
    await ask(*late, "late", errors)
    for _, writer in (pair, own, late):
        writer.close()
    server.close()
    return errors


def main():
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        child(theirs)
        os._exit(7)
    theirs.close()
    errors = asyncio.run(talk(ours))
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 7:
        errors.append(f"the child ended with status {status}")
    with open(f"{work}/result.new", "w") as result:
        result.write("\n".join(errors) + "\n" if errors else "ok\n")
    os.rename(f"{work}/result.new", f"{work}/result")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
