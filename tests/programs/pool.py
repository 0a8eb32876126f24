"""A multiprocessing pool in the middle of its work, as a program would use it. pool.py WORK_DIRECTORY"""
import hashlib
import multiprocessing
import os
import sys
import time

work = sys.argv[1]


def task(n):
    if not os.path.exists(f"{work}/go"):
        time.sleep(0.01)
    digest = str(n).encode()
    for _ in range(200):
        digest = hashlib.sha256(digest).digest()
    return n, os.getpid(), digest


def main():
    errors = []
    count = 2000
    counter = multiprocessing.Value("i", 0)
    with multiprocessing.Pool(4) as pool:
        seen = []
        for result in pool.imap(task, range(count), chunksize=2):
            seen.append(result)
            counter.value += 1
            if len(seen) == 40:
                open(f"{work}/ready", "w").close()
            while len(seen) == count // 2 and not os.path.exists(f"{work}/go"):
                time.sleep(0.01)
        workers = {pid for _, pid, _ in seen}
        for n, (number, _, digest) in enumerate(seen):
            expected = str(n).encode()
            for _ in range(200):
                expected = hashlib.sha256(expected).digest()
            if number != n or digest != expected:
                errors.append(f"result {n} is that of {number}")
        if len(workers) != 4:
            errors.append(f"{len(workers)} workers took part: {workers}")
        if counter.value != count:
            errors.append(f"the counter says {counter.value}")
        pool.close()
        pool.join()
    with open(f"{work}/result.new", "w") as result:
        result.write("\n".join(errors) + "\n" if errors else "ok\n")
    os.rename(f"{work}/result.new", f"{work}/result")
    return 1 if errors else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    sys.exit(main())
