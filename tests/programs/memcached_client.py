"""Talks with memcached by several connections, many commands at a time: memcached_client.py NUMBER PORT"""
import os
import socket
import sys
import threading
import time

number, port = int(sys.argv[1]), int(sys.argv[2])
errors = []


def talk(name):
    connection = socket.create_connection(("127.0.0.1", port))
    answers = connection.makefile("rb")
    connection.sendall(b"set %s 0 0 1\r\n0\r\n" % name)
    if answers.readline() != b"STORED\r\n":
        errors.append("not stored")
    count, more = 0, 20
    while more > 0 and not errors:
        if os.path.exists("go"):
            more -= 1
        else:
            time.sleep(0.001)
        value = b"%d " % count * 1000
        connection.sendall(
            b"".join(b"incr %s 1\r\n" % name for _ in range(20))
            + b"set %s-text 0 0 %d\r\n%s\r\nget %s-text\r\n" % (name, len(value), value, name)
        )
        got = [answers.readline() for _ in range(20)]
        if got != [b"%d\r\n" % (count + i + 1) for i in range(20)]:
            errors.append(f"{name}: {got} after {count}")
        count += 20
        if answers.readline() != b"STORED\r\n":
            errors.append(f"{name}: not stored")
        header = answers.readline()
        text = answers.read(len(value) + 2)
        if text != value + b"\r\n" or answers.readline() != b"END\r\n":
            errors.append(f"{name}: {header} {text[:50]}")
        if count >= 200 and name.endswith(b"-0"):
            open(f"works-{number}", "w").close()


threads = [threading.Thread(target=talk, args=(b"c%d-%d" % (number, i),)) for i in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with open(f"done-{number}", "w") as done:
    print("\n".join(errors) or "right", file=done)
