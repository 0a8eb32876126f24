"""SQLite in the middle of a transaction: pages in memory, a journal on disk, locks held.

transaction.py WORK_DIRECTORY VFS, where VFS is "unix" (record locks) or "unix-dotfile" (a lock file)
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
name = f"file:{work}/database?vfs={sys.argv[2]}"
errors = []
database = sqlite3.connect(name, uri=True, isolation_level=None, timeout=1)
# a small cache, so that part of the transaction has already been written to the file
database.execute("PRAGMA cache_size = 5")
database.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT)")
# one transaction for all of them: each would wait for the disk by itself
database.execute("BEGIN")
database.executemany("INSERT INTO numbers VALUES (?, ?)", ((n, "x" * 100) for n in range(1000)))
database.execute("COMMIT")
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE numbers SET text = 'changed' || n")
database.executemany("INSERT INTO numbers VALUES (?, ?)", ((n, "new") for n in range(1000, 2000)))
cursor = database.execute("SELECT n, text FROM numbers ORDER BY n")
for n in range(100):
    cursor.fetchone()


def expect(what, expected, got):
    if expected != got:
        errors.append(f"{what}: before {expected!r}, after {got!r}")


open(f"{work}/ready", "w").close()
while not os.path.exists(f"{work}/go"):
    time.sleep(0.005)

# nobody else may write: the locks are still held
other = subprocess.run([sys.executable, "-c", PROBE, name])
expect("another writer is kept out", 0, other.returncode)
expect("the cursor goes on", (100, "changed100"), cursor.fetchone())
expect("rows left for the cursor", 1899, len(cursor.fetchall()))
expect("rows in the transaction", 2000, database.execute("SELECT count(*) FROM numbers").fetchone()[0])
database.execute("SAVEPOINT more")
database.execute("DELETE FROM numbers WHERE n % 2")
database.execute("ROLLBACK TO more")
database.execute("COMMIT")
database.close()
database = sqlite3.connect(name, uri=True)
expect("integrity", "ok", database.execute("PRAGMA integrity_check").fetchone()[0])
expect("rows after the commit", (2000, 1000), database.execute("SELECT count(*), sum(text LIKE 'changed%') FROM numbers").fetchone())
with open(f"{work}/result.new", "w") as result:
    result.write("\n".join(errors) + "\n" if errors else "ok\n")
os.rename(f"{work}/result.new", f"{work}/result")
sys.exit(1 if errors else 0)
