"""SQLite with a write-ahead log: a writer in the middle of a transaction, a reader with an old snapshot, and another
writer that waits. Its locks are on the shared memory file, which is mapped.

wal.py WORK_DIRECTORY
"""
import os
import sqlite3
import subprocess
import sys
import time

# a process that SQLite has told nothing: after a fork it knows the locks of the parent
PROBE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], uri=True, isolation_level=None, timeout=0).execute("BEGIN IMMEDIATE")
    sys.exit(1)
except sqlite3.OperationalError as error:
    sys.exit(0 if "locked" in str(error) else 2)
"""

work = sys.argv[1]
name = f"{work}/database"
errors = []


def connect(timeout):
    return sqlite3.connect(name, isolation_level=None, timeout=timeout)


def expect(what, expected, got):
    if expected != got:
        errors.append(f"{what}: before {expected!r}, after {got!r}")


def member(act):
    """A process that says when it is ready, and ends when it is told to go on."""
    ours, theirs = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours[0]), os.close(theirs[1])
        try:
            act(lambda: os.write(ours[1], b"x"), lambda: os.read(theirs[0], 1))
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    os.close(ours[1]), os.close(theirs[0])
    os.read(ours[0], 1)
    return pid, theirs[1]


def read_old(ready, wait):
    database = connect(0)
    database.execute("BEGIN")
    before = database.execute("SELECT count(*) FROM numbers").fetchone()[0]
    ready()
    wait()
    assert database.execute("SELECT count(*) FROM numbers").fetchone()[0] == before == 1000
    database.execute("COMMIT")
    assert database.execute("SELECT count(*) FROM numbers").fetchone()[0] == 2001


def write_later(ready, wait):
    ready()
    wait()
    database = connect(100)
    database.execute("BEGIN IMMEDIATE")
    assert database.execute("SELECT count(*) FROM numbers").fetchone()[0] == 2000
    database.execute("INSERT INTO numbers VALUES (-1)")
    database.execute("COMMIT")
    wait()


database = connect(1)
assert database.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
database.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
database.execute("BEGIN")
database.executemany("INSERT INTO numbers VALUES (?)", ((n,) for n in range(1000)))
database.execute("COMMIT")
database.close()
# children first: a connection is not to be taken across fork
reader, tell_reader = member(read_old)
writer, tell_writer = member(write_later)
database = connect(1)
database.execute("BEGIN IMMEDIATE")
database.executemany("INSERT INTO numbers VALUES (?)", ((n,) for n in range(1000, 2000)))
os.write(tell_writer, b"x")
while "database-shm" not in open(f"/proc/{writer}/maps").read():
    time.sleep(0.005)

open(f"{work}/ready", "w").close()
while not os.path.exists(f"{work}/go"):
    time.sleep(0.005)

expect("a stranger is kept out", 0, subprocess.run([sys.executable, "-c", PROBE, name]).returncode)
database.execute("COMMIT")
for n in range(10000):
    if database.execute("SELECT count(*) FROM numbers").fetchone()[0] == 2001:
        break
    time.sleep(0.005)
os.write(tell_writer, b"x")
expect("who waited to write", 0, os.waitpid(writer, 0)[1])
busy, log, done = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
expect("the old snapshot is in the way of a checkpoint", 1, busy)
os.write(tell_reader, b"x")
expect("who reads an old snapshot", 0, os.waitpid(reader, 0)[1])
expect("nothing is in the way of a checkpoint", (0, 0, 0), database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
expect("integrity", "ok", database.execute("PRAGMA integrity_check").fetchone()[0])
with open(f"{work}/result.new", "w") as result:
    result.write("\n".join(errors) + "\n" if errors else "ok\n")
os.rename(f"{work}/result.new", f"{work}/result")
sys.exit(1 if errors else 0)
