"""Python with threads: counters, locks, a queue, timers, generators, exceptions. counter.py WORK_DIRECTORY"""
import hashlib
import os
import queue
import sys
import threading
import time

work = sys.argv[1]
stop = threading.Event()
counters = [0] * 8
hashes = [hashlib.sha256() for _ in counters]
jobs = queue.Queue(maxsize=10)
lock = threading.Lock()
total = 0
errors = []


def count(i):
    global total
    try:
        while not stop.is_set():
            hashes[i].update(counters[i].to_bytes(8, "little"))
            counters[i] += 1
            with lock:
                total += 1
            if counters[i] % 100 == 0:
                time.sleep(0.001)
    except BaseException as error:
        errors.append(f"counter {i}: {error!r}")


def produce():
    try:
        n = 0
        while not stop.is_set():
            jobs.put(n)
            n += 1
        jobs.put(None)
    except BaseException as error:
        errors.append(f"producer: {error!r}")


def consume():
    try:
        expected = 0
        while (job := jobs.get(timeout=60)) is not None:
            if job != expected:
                raise ValueError(f"job {job} instead of {expected}")
            expected += 1
            if expected % 50 == 0:
                stop.wait(0.002)
    except BaseException as error:
        errors.append(f"consumer: {error!r}")


threads = [threading.Thread(target=count, args=(i,)) for i in range(len(counters))]
threads += [threading.Thread(target=produce), threading.Thread(target=consume)]
for thread in threads:
    thread.start()
while min(counters) < 200:
    time.sleep(0.01)
open(f"{work}/ready", "w").close()
while not os.path.exists(f"{work}/go"):
    time.sleep(0.005)
before = list(counters)
time.sleep(0.2)
stop.set()
for thread in threads:
    thread.join(60)
for i, n in enumerate(counters):
    if n <= before[i]:
        errors.append(f"counter {i} has stopped at {n}")
    expected = hashlib.sha256(b"".join(k.to_bytes(8, "little") for k in range(n)))
    if expected.digest() != hashes[i].digest():
        errors.append(f"hash of counter {i} at {n}")
if total != sum(counters):
    errors.append(f"total {total} instead of {sum(counters)}")
with open(f"{work}/result.new", "w") as result:
    result.write("\n".join(errors) + "\n" if errors else "ok\n")
os.rename(f"{work}/result.new", f"{work}/result")
sys.exit(1 if errors else 0)
